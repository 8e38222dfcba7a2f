"""Face restorers on disk and the files they need, told by the files' names alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modules.core.errors import InvalidRequest
from modules.library.files import FACE, Library, ModelFile

GFPGAN, CODEFORMER = "GFPGAN", "CodeFormer"


@dataclass(frozen=True)
class Published:
    """A file as it is published: its name, the folder below ``models`` for it, and what the names of its kind hold."""

    file: str
    folder: str
    mark: str


RESTORERS: Mapping[str, Published] = MappingProxyType({
    CODEFORMER: Published("codeformer-v0.1.0.pth", "Codeformer", "codeformer"),
    GFPGAN: Published("GFPGANv1.4.pth", "GFPGAN", "gfpgan"),
})
DETECTOR = Published("detection_Resnet50_Final.pth", "GFPGAN", "detection_resnet50")
PARSER = Published("parsing_parsenet.pth", "GFPGAN", "parsing_parsenet")


@dataclass(frozen=True)
class FaceFiles:
    """The files of a face restorer: itself, what finds faces, and what finds their parts, where there is one."""

    restorer: ModelFile
    detector: ModelFile
    parser: ModelFile | None = None


def face_files(library: Library, name: str) -> FaceFiles:
    """Return the files of the face restorer ``name``; raises ``InvalidRequest`` naming one that is missing."""
    if name not in RESTORERS:
        raise InvalidRequest(f"There is no face restorer {name[:100]!r}.", f"There are {', '.join(RESTORERS)}.")
    files = library.files(FACE)
    restorer, detector = _found(files, RESTORERS[name]), _found(files, DETECTOR)
    if restorer is None or detector is None:
        lacking = RESTORERS[name] if restorer is None else DETECTOR
        raise InvalidRequest(f"{name} needs {lacking.file}, which is not here.",
                             f"Put it into {library.folders.models_dir / lacking.folder}.")
    return FaceFiles(restorer, detector, _found(files, PARSER))


def face_restorers(library: Library) -> Mapping[str, FaceFiles]:
    """Return the face restorers that have all the files they need, by name."""
    found = {}
    for name in RESTORERS:
        try:
            found[name] = face_files(library, name)
        except InvalidRequest:
            continue
    return MappingProxyType(found)


def lacking(library: Library) -> tuple[str, ...]:
    """Return a sentence for each face restorer that lacks a file: which one, and where it goes."""
    sentences = []
    for name in RESTORERS:
        try:
            face_files(library, name)
        except InvalidRequest as error:
            sentences.append(f"{error.message} {error.hint}")
    return tuple(sentences)


def _found(files: tuple[ModelFile, ...], published: Published) -> ModelFile | None:
    """Return the file of a kind, of several the one with the highest version in its name."""
    fitting = [file for file in files if published.mark in file.stem.lower()]
    return max(fitting, key=lambda file: file.stem.lower(), default=None)
