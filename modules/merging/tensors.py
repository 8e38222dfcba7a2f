"""Tensors of files, read piece by piece; nothing is mapped, so that a file that shrinks meanwhile is only an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import torch
from torch import Tensor

from modules.core.errors import InvalidModel
from modules.families.components import open_tensors
from modules.library.headers import SAFETENSORS, read_header
from modules.library.safetensors_format import locate
from modules.library.tensors import DTYPE_BITS, TensorInfo

DTYPES: Mapping[str, torch.dtype] = MappingProxyType({
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
})
NAMES: Mapping[torch.dtype, str] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})
FLOATS = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True)
class Stored:
    """A tensor that is somewhere else; ``read(start, stop)`` gives a flat piece of its elements."""

    info: TensorInfo
    read: Callable[[int, int], Tensor]

    @property
    def is_float(self) -> bool:
        """Whether its values are numbers to compute with."""
        return self.info.dtype in FLOATS

    def whole(self) -> Tensor:
        """Return the tensor in its shape."""
        return self.read(0, self.info.elements).reshape(self.info.shape)


def held(tensor: Tensor) -> Stored:
    """Return a tensor of memory as one that is stored."""
    flat = tensor.reshape(-1)
    return Stored(TensorInfo(NAMES[tensor.dtype], tuple(tensor.shape)), lambda start, stop: flat[start:stop])


def reshaped(stored: Stored, shape: Sequence[int]) -> Stored:
    """Return ``stored`` in another shape of as many elements."""
    return Stored(TensorInfo(stored.info.dtype, tuple(shape)), stored.read)


def transposed(stored: Stored) -> Stored:
    """Return the transpose of a matrix, which is read as a whole each time."""
    def read(start: int, stop: int) -> Tensor:
        return stored.whole().T.reshape(-1)[start:stop]
    return Stored(TensorInfo(stored.info.dtype, stored.info.shape[::-1]), read)


def stacked(parts: Sequence[Stored]) -> Stored:
    """Return tensors one below the other, along their first dimension."""
    counts = [part.info.elements for part in parts]
    first = parts[0].info

    def read(start: int, stop: int) -> Tensor:
        pieces, begin = [], 0
        for part, count in zip(parts, counts, strict=True):
            low, high = max(0, start - begin), min(count, stop - begin)
            if low < high:
                pieces.append(part.read(low, high))
            begin += count
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=DTYPES[first.dtype])
    shape = (sum(part.info.shape[0] for part in parts), *first.shape[1:])
    return Stored(TensorInfo(first.dtype, shape), read)


def rows(stored: Stored, first: int, count: int) -> Stored:
    """Return ``count`` rows of ``stored`` from ``first`` on."""
    width = stored.info.elements // max(1, stored.info.shape[0])
    offset = first * width
    return Stored(TensorInfo(stored.info.dtype, (count, *stored.info.shape[1:])),
                  lambda start, stop: stored.read(start + offset, stop + offset))


def open_stored(paths: Iterable[str | Path], stack: ExitStack) -> dict[str, Stored]:
    """Return the tensors of files by name; ``stack`` closes the files.

    Pickles are read with torch's weights-only reader, mapped where they are zip archives. Raises ``InvalidModel`` for
    files that are damaged or not safe, and for types that are unknown here.
    """
    found: dict[str, Stored] = {}
    for path in map(Path, paths):
        if read_header(path).layout == SAFETENSORS:
            found |= _safetensors(path, stack)
        else:
            found |= {name: held(tensor) for name, tensor in open_tensors(str(path)).items() if tensor.dtype in NAMES}
    return found


def _safetensors(path: Path, stack: ExitStack) -> dict[str, Stored]:
    file = stack.enter_context(path.open("rb", buffering=0))
    found = {}
    for name, (info, offset) in locate(path)[0].items():
        if info.dtype not in DTYPES:
            raise InvalidModel(f"{path.name}: {name} is of the type {info.dtype}, which cannot be merged.")
        found[name] = Stored(info, _reader(file, path.name, info.dtype, offset))
    return found


def _reader(file: BinaryIO, name: str, dtype: str, offset: int) -> Callable[[int, int], Tensor]:
    size = DTYPE_BITS[dtype] // 8

    def read(start: int, stop: int) -> Tensor:
        piece = torch.empty(max(0, stop - start), dtype=DTYPES[dtype])
        view = memoryview(raw(piece))
        file.seek(offset + start * size)
        while len(view):
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise InvalidModel(f"{name} has become shorter while it was read.", "Download the file again.")
            view = view[count:]
        return piece
    return read


def raw(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor, not copied."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
