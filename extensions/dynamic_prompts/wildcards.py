"""The files that ``__name__`` in a template takes its lines from."""

from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


class Wildcards:
    """The wildcard files ``*.txt`` under some folders, as they are when first asked for.

    A name is a file's path within its folder without ``.txt``; in it ``*`` stands for anything but a slash, ``**`` for
    anything. Lines that are empty or begin with ``#`` do not count. No name reaches a file outside the folders, not by
    ``..`` and not by a symbolic link.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        self._folders = tuple(Path(folder) for folder in folders)

    def __call__(self, name: str) -> tuple[str, ...]:
        """Return the lines of every file that ``name`` matches, in the files' order, each line once."""
        lines = (line for path in self._matching(name) for line in _lines(path))
        return tuple(dict.fromkeys(lines))

    def names(self) -> tuple[str, ...]:
        """Return the names of all wildcards, sorted."""
        return tuple(dict.fromkeys(name for name, _ in self._files))

    @functools.cached_property
    def _files(self) -> tuple[tuple[str, Path], ...]:
        return tuple(sorted(pair for folder in self._folders for pair in _text_files(folder)))

    def _matching(self, name: str) -> Iterator[Path]:
        return (path for known, path in self._files if _matches(known, name))


def _text_files(folder: Path) -> Iterator[tuple[str, Path]]:
    root = folder.resolve()
    for directory, _, filenames in os.walk(root):
        for filename in filenames:
            path = Path(directory, filename)
            if path.suffix.lower() == ".txt" and path.resolve().is_relative_to(root):
                yield path.relative_to(root).with_suffix("").as_posix(), path


def _matches(known: str, pattern: str) -> bool:
    if "*" not in pattern:
        return known == pattern
    if "**" in pattern:
        return any(fnmatch.fnmatchcase(known, form) for form in (pattern, pattern.replace("**/", "")))
    parts, wanted = known.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return
    yield from (line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
