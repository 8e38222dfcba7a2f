"""The safetensors container: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from modules.core.errors import InvalidModel
from modules.library.tensors import DTYPE_BITS, TensorInfo

MAX_HEADER_BYTES = 100_000_000
_MAX_JSON_ITEMS = 4_000_000
_MAX_DIMENSIONS = 64

_DOWNLOAD_AGAIN = "Download the file again."


def looks_like_safetensors(start: bytes) -> bool:
    """Return whether ``start`` (at least the first 9 bytes) begins like a safetensors file."""
    return len(start) > 8 and start[8:9] == b"{"


def data_offset(file: BinaryIO) -> int:
    """Return where the tensors' bytes begin. Raises ``InvalidModel`` where ``file`` is not safetensors."""
    file.seek(0)
    start = file.read(9)
    if not looks_like_safetensors(start):
        raise InvalidModel("This is not a safetensors file.", _DOWNLOAD_AGAIN)
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidModel(f"Its header claims {length:,} bytes; at most {MAX_HEADER_BYTES:,} are allowed.",
                           _DOWNLOAD_AGAIN)
    return 8 + length


def read_safetensors(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return tensors by name and the metadata of a safetensors file; reads its header only. Raises as ``locate``."""
    located, metadata = locate(path)
    return {name: info for name, (info, _) in located.items()}, metadata


def locate(path: Path) -> tuple[dict[str, tuple[TensorInfo, int]], dict[str, str]]:
    """Return each tensor by name with the number of its first byte in the file, and the metadata.

    Raises ``InvalidModel`` when the header is too large, is no valid JSON, or when the tensors' ranges overlap,
    leave gaps or do not end where the file ends (a truncated download).
    """
    with path.open("rb") as file:
        offset = data_offset(file)
        size = path.stat().st_size
        if offset > size:
            raise InvalidModel(f"{path.name} is truncated: {offset:,} bytes expected, {size:,} found.", _DOWNLOAD_AGAIN)
        file.seek(8)
        header = _parse(file.read(offset - 8), path.name)
    metadata = _metadata(header.pop("__metadata__", {}), path.name)
    located, ranges = {}, []
    for name, entry in header.items():
        info, start, end = _tensor(entry, name, path.name)
        located[name] = info, offset + start
        ranges.append((start, end, name))
    _check_ranges(sorted(ranges), size - offset, path.name)
    return located, metadata


def _parse(text: bytes, file_name: str) -> dict[str, Any]:
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > _MAX_JSON_ITEMS:
        raise InvalidModel(f"The header of {file_name} has more entries than any model has.", _DOWNLOAD_AGAIN)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"The header of {file_name} is damaged: {error}.", _DOWNLOAD_AGAIN) from error
    if not isinstance(header, dict):
        raise InvalidModel(f"The header of {file_name} is not an object.", _DOWNLOAD_AGAIN)
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _metadata(value: object, file_name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidModel(f"The metadata of {file_name} is not a map of texts.", _DOWNLOAD_AGAIN)
    return value


def _tensor(entry: object, name: str, file_name: str) -> tuple[TensorInfo, int, int]:
    fields: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not _sizes(shape) or not _sizes(offsets) or len(cast(list[int], offsets)) != 2:
        raise InvalidModel(f"{file_name}: the entry of {_shown(name)} is damaged.", _DOWNLOAD_AGAIN)
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise InvalidModel(f"{file_name}: {_shown(name)} has the unknown type {_shown(str(dtype))}.")
    info = TensorInfo(dtype, tuple(cast(list[int], shape)))
    start, end = cast(list[int], offsets)
    if end - start != info.bytes:
        raise InvalidModel(f"{file_name}: {_shown(name)} needs {info.bytes:,} bytes and has {end - start:,}.",
                           _DOWNLOAD_AGAIN)
    return info, start, end


def _sizes(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_DIMENSIONS and all(
        type(item) is int and 0 <= item < 2**63 for item in value
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]}...")


def _check_ranges(ranges: list[tuple[int, int, str]], size: int, file_name: str) -> None:
    position = 0
    for start, end, name in ranges:
        if start != position:
            fault = "overlaps the tensor before it" if start < position else "leaves a gap before it"
            raise InvalidModel(f"{file_name}: {_shown(name)} {fault}.", _DOWNLOAD_AGAIN)
        position = end
    if position > size:
        raise InvalidModel(f"{file_name} is truncated: {position:,} bytes expected, {size:,} found.", _DOWNLOAD_AGAIN)
    if position < size:
        raise InvalidModel(f"{file_name} has {size - position:,} bytes behind its last tensor.", _DOWNLOAD_AGAIN)
