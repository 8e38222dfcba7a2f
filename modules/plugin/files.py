"""Model files, for plugins: what a file holds, and what a checkpoint is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from modules.core.plan import ModelRef
from modules.core.request import Request
from modules.families import detect
from modules.families.base import Variant
from modules.families.places import Place, places
from modules.library.hashes import file_sha256
from modules.library.headers import inert_globals, read_header
from modules.library.safetensors_format import data_offset, looks_like_safetensors
from modules.library.walk import is_folder, walk

Found = TypeVar("Found")


def model_variant(model: ModelRef) -> Variant:
    """Return what a checkpoint is, from its header alone; raises ``InvalidModel`` for what is none."""
    return detect(read_header(model.checkpoint))[1]


def read_tensors(path: str | Path) -> Any:
    """Return what a model file holds, tensors included: the object that was pickled, or safetensors' names to tensors.

    Pickles are read weights-only; raises ``InvalidModel`` for one that holds anything else. Imports torch.
    """
    from modules.runtime.weights import read_object

    return read_object(path, inert_globals())


@dataclass(frozen=True)
class Stamp:
    """A file as it is now: path, time of change and size; equal stamps are the same content."""

    path: Path
    mtime: int
    size: int


def model_files(folders: Iterable[Path], suffixes: tuple[str, ...]) -> list[Stamp]:
    """Return the files in ``folders`` and below whose names end so, by path; links are followed, loops are not."""
    return sorted(_walked(folders, suffixes), key=lambda stamp: str(stamp.path).lower())


class OncePerRequest(Generic[Found]):
    """What ``find`` returned when a request was planned: its batches and segments walk through no folder."""

    def __init__(self, find: Callable[[], Found]) -> None:
        self._find = find
        self._last: tuple[Request, Found] | None = None

    def __call__(self, request: Request) -> Found:
        """Return what was found for ``request``, anew where it is another than the last."""
        if self._last is None or self._last[0] is not request:
            self._last = request, self._find()
        return self._last[1]


def weight_places(model: ModelRef) -> Mapping[str, Place]:
    """Return the modules of a checkpoint's denoiser and text encoders by every name that files of changes have."""
    status = Path(model.checkpoint).stat()
    return _places(model.checkpoint, status.st_mtime_ns)


def read_metadata(path: str | Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file, nothing for others; raises ``InvalidModel`` for a damaged one."""
    return read_header(path).metadata


def data_sha256(path: str | Path) -> str:
    """Return the sha256 of a file's tensors: of what follows the header of safetensors, of all of others."""
    path = Path(path)
    with path.open("rb") as file:
        offset = data_offset(file) if looks_like_safetensors(file.read(9)) else 0
    return file_sha256(path, offset=offset)


@functools.lru_cache(maxsize=8)
def _places(path: str, mtime: int) -> Mapping[str, Place]:
    header = read_header(path)
    return places(header, detect(header)[1])


def _walked(folders: Iterable[Path], suffixes: tuple[str, ...]) -> Iterator[Stamp]:
    for here in walk(folders):
        for name, entry in here.entries.items():
            if name.lower().endswith(suffixes) and not is_folder(entry):
                with contextlib.suppress(OSError):  # gone meanwhile, or a link to nothing
                    status = entry.stat()
                    yield Stamp(Path(entry.path), status.st_mtime_ns, status.st_size)
