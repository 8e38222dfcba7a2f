"""Model files with what lies beside them: sidecars and a cover, named as A1111 and Civitai Helper do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.library.files import CHECKPOINT, EMBEDDING, HYPERNETWORK, LORA, SUFFIXES, is_vae_name
from modules.library.headers import MODEL_INDEX
from modules.library.walk import is_folder, walk

NETWORKS = (CHECKPOINT, LORA, EMBEDDING, HYPERNETWORK)
SIDECARS = (".json", ".civitai.info", ".txt", ".description.txt")
# In A1111's order: the first that is there is shown.
COVERS = tuple(f"{middle}.{suffix}" for suffix in ("png", "jpg", "jpeg", "webp", "gif") for middle in ("", ".preview"))
PICTURES = (".png", ".webp", ".jxl", ".avif")

Status = Callable[[str], os.stat_result | None]


@dataclass(frozen=True)
class NetworkFile:
    """A model file, or a diffusers folder, of one of the ``NETWORKS``.

    ``name`` is its path below the folder of its kind, with ``/``; ``base`` its path without the suffix, to which the
    names of sidecars add theirs. ``cover`` is the path of its picture, empty without one, and ``cover_stamp`` changes
    with it. ``stamp`` changes with the file, any sidecar and the cover.
    """

    kind: str
    path: str
    name: str
    base: str
    size: int
    mtime_ns: int
    cover: str
    cover_stamp: str
    stamp: str

    @property
    def stem(self) -> str:
        """The file's name without folders and suffix: what a prompt calls it."""
        return os.path.basename(self.base)

    @property
    def folder(self) -> str:
        """The folder below that of its kind, empty for files directly in it."""
        return self.name.rpartition("/")[0]


def network_files(kind: str, places: Sequence[Path], files: Sequence[Path] = ()) -> Iterator[NetworkFile]:
    """Yield the networks of ``kind`` below ``places``, and the single ``files``.

    Hidden names and what cannot be read are passed over; links are followed, loops are not.
    """
    for path in files:
        if found := network_file(kind, path.name, str(path)):
            yield found
    for here in walk(places, lambda entry: is_folder(entry) and not _is_model_folder(kind, entry)):
        status = _listed(here.entries)
        for name in _networks(kind, here.entries):
            if found := _described(kind, f"{here.below}{name}", os.path.join(here.path, name), status):
                yield found


def network_file(kind: str, name: str, path: str) -> NetworkFile | None:
    """Return one network as it is now, None where it is gone."""
    folder = os.path.dirname(path)

    def status(sibling: str) -> os.stat_result | None:
        try:
            return os.stat(os.path.join(folder, sibling))
        except OSError:
            return None
    return _described(kind, name, path, status)


def _listed(entries: Mapping[str, os.DirEntry[str]]) -> Status:
    def status(name: str) -> os.stat_result | None:
        try:
            return entries[name].stat() if name in entries else None
        except OSError:
            return None
    return status


def _networks(kind: str, entries: Mapping[str, os.DirEntry[str]]) -> list[str]:
    named = [name for name in entries if name.lower().endswith(SUFFIXES[kind]) and not is_folder(entries[name])]
    if kind == CHECKPOINT:
        folders = [name for name, entry in entries.items() if _is_model_folder(kind, entry)]
        return [name for name in named if not is_vae_name(name)] + folders
    if kind == EMBEDDING:  # a picture may hold an embedding, or be the cover of one
        stems = {_base(name) for name in named if not name.lower().endswith(PICTURES)}
        return [name for name in named if not name.lower().endswith(PICTURES)
                or (_base(name) not in stems and not _base(name).lower().endswith(".preview"))]
    return named


def _is_model_folder(kind: str, entry: os.DirEntry[str]) -> bool:
    return kind == CHECKPOINT and is_folder(entry) and os.path.isfile(os.path.join(entry.path, MODEL_INDEX))


def _base(path: str) -> str:
    return path.rpartition(".")[0]


def _described(kind: str, name: str, path: str, status_of: Status) -> NetworkFile | None:
    folder, file = os.path.split(path)
    status = status_of(file)
    if status is None:
        return None
    stem = _base(file) if file.lower().endswith(SUFFIXES[kind]) else file
    beside = {suffix: found for suffix in SIDECARS if (found := status_of(f"{stem}{suffix}"))}
    covers = ((f"{stem}{suffix}", found) for suffix in COVERS if (found := status_of(f"{stem}{suffix}")))
    cover, cover_status = next(covers, ("", None))
    cover_stamp = _stamp(cover, cover_status) if cover_status else ""
    stamps = (_stamp(file, status), *(_stamp(suffix, found) for suffix, found in beside.items()), cover_stamp)
    return NetworkFile(kind, path, name, os.path.join(folder, stem), status.st_size, status.st_mtime_ns,
                       os.path.join(folder, cover) if cover else "", cover_stamp, "|".join(stamps))


def _stamp(name: str, status: os.stat_result) -> str:
    return f"{name}:{status.st_size}:{status.st_mtime_ns}"
