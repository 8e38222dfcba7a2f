"""One walk over folders of files, for everybody who lists what is below them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Listing:
    """A folder: its ``path``, its path ``below`` the place that was asked for, and its entries by name.

    ``below`` is empty for the place itself, else it has ``/`` between names and at the end.
    """

    path: str
    below: str
    entries: Mapping[str, os.DirEntry[str]]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether ``entry`` is a folder or a link to one; what cannot be read is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def walk(places: Iterable[str | os.PathLike[str]],
         enter: Callable[[os.DirEntry[str]], bool] = is_folder) -> Iterator[Listing]:
    """Yield ``places`` and the folders below them that ``enter`` wants, each folder once.

    Hidden names, names that are no text, and folders that cannot be read are passed over; loops of links end.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [(os.fspath(place), "") for place in places][::-1]
    while waiting:
        path, below = waiting.pop()
        listing = Listing(path, below, _entries(path, seen))
        yield listing
        waiting.extend((entry.path, f"{below}{name}/") for name, entry in listing.entries.items() if enter(entry))


def is_text(path: str) -> bool:
    """Return whether ``path`` can be stored; names that are not in the file system's encoding cannot."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(folder: str, seen: set[tuple[int, int]]) -> dict[str, os.DirEntry[str]]:
    """Return what is in a folder, by name; nothing for one that was ``seen`` before or cannot be read."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return {}
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            return {entry.name: entry for entry in found if not entry.name.startswith(".") and is_text(entry.name)}
    except OSError:
        return {}
