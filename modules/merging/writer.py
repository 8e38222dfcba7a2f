"""A safetensors file written as its tensors come, under a temporary name until it is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from torch import Tensor

from modules.core.errors import DiskFull, InvalidRequest
from modules.library.tensors import TensorInfo
from modules.merging.tensors import raw

PARTIAL = ".partial"
SPARE = 64 * 1024 * 1024
# ModelSpec's and sd-scripts' entries for the sha256 of all tensors' bytes; it is known last and written in its place.
HASH, LORA_HASH = "modelspec.hash_sha256", "sshs_model_hash"
HASHES: Mapping[str, str] = MappingProxyType({HASH: "0x{}", LORA_HASH: "{}"})
_UNKNOWN = "0" * 64


def check_space(folder: Path, needed: int) -> None:
    """Raise ``DiskFull`` where ``needed`` bytes, and some to spare, are not free."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise DiskFull(f"{(needed + SPARE) / 1e9:.2f} GB are needed in {folder.name} and {free / 1e9:.2f} GB are free.",
                       "Free some space.")


def check_new(target: Path) -> None:
    """Raise ``InvalidRequest`` where ``target`` exists."""
    if target.exists():
        raise InvalidRequest(f"There is already a {target.name}.", "Choose another name.")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that becomes it in the end; whatever is raised leaves nothing behind.

    Raises ``InvalidRequest`` where ``target`` exists, ``DiskFull`` where the disk is full.
    """
    check_new(target)
    try:
        with temporary(target) as partial:
            yield partial
            check_new(target)
            os.replace(partial, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("The disk became full.", "Free some space.") from error
        raise


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` that no list of models shows; what is there in the end, or still was, is removed."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    _remove(partial)
    try:
        yield partial
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def write_safetensors(path: Path, infos: Sequence[tuple[str, TensorInfo]], metadata: Mapping[str, str],
                      pieces: Iterable[Tensor]) -> None:
    """Write a file with tensors ``infos``, whose values are ``pieces`` in their order.

    Where the metadata have one of ``HASHES``, it becomes the sha256 of these.
    """
    header = header_bytes(infos, metadata)
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1, "hash") as beside:
        _put(file, header)
        hashed = beside.submit(digest.update, b"")
        for piece in pieces:
            view = raw(piece.contiguous())
            hashed.result()
            hashed = beside.submit(digest.update, view)
            _put(file, view)
        hashed.result()
        for name in HASHES.keys() & metadata.keys():
            file.seek(header.index(_UNKNOWN.encode(), header.index(name.encode())))
            _put(file, digest.hexdigest().encode())
        os.fsync(file.fileno())


def header_bytes(infos: Sequence[tuple[str, TensorInfo]], metadata: Mapping[str, str]) -> bytes:
    """Return the length and the header of a safetensors file, aligned to 8 bytes."""
    told = dict(metadata) | {name: form.format(_UNKNOWN) for name, form in HASHES.items() if name in metadata}
    entries: dict[str, object] = {"__metadata__": told} if told else {}
    begin = 0
    for name, info in infos:
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [begin, begin + info.bytes]}
        begin += info.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _put(file: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[file.write(view):]
