"""Saved pictures: numbered, never overwritten, complete or not there."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from modules.core.errors import DarkroomError, DiskFull
from modules.core.result import GRID, PICTURE
from modules.core.settings import Settings
from modules.library import patterns
from modules.library.files import Folders
from modules.library.images import encode, holds
from modules.library.patterns import Facts
from modules.library.sixteen_bit import DeepImage

PARTIAL = ".part"
NUMBER = "[number]"

_DEFAULT_PATTERN = "[number]-[seed]"
_MAX_BEFORE, _MAX_AFTER = 48, 160
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Target:
    """Where a picture belongs: ``tab`` is ``txt2img``, ``img2img`` ...; ``kind`` ``picture`` or ``grid``.

    With ``spool`` it goes to the folder of pictures that were asked not to be saved, whatever the settings say.
    ``ending`` is put at the end of the file's name. ``pattern`` takes the place of the settings' patterns for names
    and subfolders, ``subfolder``, as it is, that of those for subfolders.
    """

    facts: Facts
    tab: str = "txt2img"
    kind: str = PICTURE
    spool: bool = False
    ending: str = ""
    pattern: str = ""
    subfolder: str = ""


@dataclass(frozen=True)
class _Name:
    """A file's name with a gap for its number: ``before``, digits, ``after``."""

    before: str
    after: str
    digits: int

    def numbered(self, number: int) -> str:
        return f"{self.before}{number:0{self.digits}}{self.after}"

    def number_in(self, name: str) -> int:
        match = re.match(rf"{re.escape(self.before)}(\d{{1,18}})(?!\d)", name)
        return int(match[1]) if match else -1

    def highest_in(self, folder: Path) -> int:
        return max(map(self.number_in, os.listdir(folder)), default=-1)

    def has(self, folder: Path, number: int) -> bool:
        start = f"{self.before}{number:0{self.digits}}"
        return any(entry.startswith(start) and self.number_in(entry) == number for entry in os.listdir(folder))


def write_file(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path``. Raises ``OSError`` as the system does."""
    with path.open("wb") as file:
        file.write(data)


class Outputs:
    """Writes pictures below ``folders.outputs`` and ``folders.spool``; several threads and processes may at once.

    It remembers each folder's highest number so that names are only compared, not counted, from then on.
    """

    def __init__(self, folders: Folders, write: Callable[[Path, bytes], None] = write_file) -> None:
        self._folders = folders
        self._write = write
        self._lock = threading.Lock()
        self._next: dict[tuple[Path, str], int] = {}

    def save(self, image: Image.Image | DeepImage, infotext: str, target: Target, settings: Settings) -> Path:
        """Write ``image`` with its infotext and return the absolute path.

        Its number is one above the highest of its folder; no file is ever overwritten. A text file of the same name
        goes along if ``settings.save_txt`` asks for it or the format has no room for the infotext.
        Raises ``DiskFull`` with the space that is left, or ``DarkroomError`` where the folder cannot be written;
        nothing half-written remains.
        """
        folder = self.folder(target, settings)
        data, suffix = encode(image, infotext, settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = self._store(folder, _name(target, settings), suffix, data)
            if infotext and (settings.save_txt or (settings.enable_pnginfo and not holds(infotext, suffix))):
                self._write_text(path.with_suffix(".txt"), infotext)
        except OSError as error:
            raise _explained(error, folder) from error
        return path

    def folder(self, target: Target, settings: Settings) -> Path:
        """Return the folder that ``save`` writes to; always below ``folders.outputs`` or ``folders.spool``."""
        if target.spool:
            return self._folders.spool / f"{target.facts.now:%Y-%m-%d}"
        name = f"{patterns.sanitised(target.tab)}-{'grids' if target.kind == GRID else 'images'}"
        subfolders = settings.save_to_dirs and not target.pattern
        pattern = (settings.directories_filename_pattern or "[prompt_words]") if subfolders else ""
        below = target.subfolder or patterns.expand(pattern, target.facts)
        return self._folders.outputs.joinpath(name, *patterns.safe_path(below))

    def _store(self, folder: Path, name: _Name, suffix: str, data: bytes) -> Path:
        partial, number = self._reserve(folder, name)
        try:
            self._write(partial, data)
            path = folder / f"{name.numbered(number)}{suffix}"
            _publish(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return path

    def _reserve(self, folder: Path, name: _Name) -> tuple[Path, int]:
        """Return an empty temporary file and the number that it stands for until it is removed.

        Nobody else can create that file. The number counts only if, looked at after creating it, no finished file
        has it, for another process may have finished one since the last look.
        """
        with self._lock:
            number = self._next.get((folder, name.before), -1)
        if number < 0:
            number = name.highest_in(folder) + 1
        while True:
            partial = folder / f".{name.before}{number:0{name.digits}}{PARTIAL}"
            try:
                with partial.open("xb"):
                    pass
            except FileExistsError:
                number += 1
                continue
            if not name.has(folder, number):
                break
            partial.unlink()
            number = name.highest_in(folder) + 1
        with self._lock:
            self._next[folder, name.before] = number + 1
        return partial, number

    def _write_text(self, path: Path, infotext: str) -> None:
        partial = path.with_name(f".{path.name}{PARTIAL}")
        try:
            self._write(partial, f"{infotext}\n".encode("utf-8", errors="replace"))
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def expire_spool(folders: Folders, hours: float, now: float | None = None) -> int:
    """Delete what has lain in the spool for more than ``hours``; return the number of files."""
    limit = (time.time() if now is None else now) - hours * 3600
    removed = _remove_old(folders.spool, limit, "")
    for place, _, _ in os.walk(folders.spool, topdown=False):
        with suppress(OSError):
            if Path(place) != folders.spool and os.stat(place).st_mtime < limit:
                os.rmdir(place)
    return removed


def remove_partial(folders: Folders, hours: float = 24.0, now: float | None = None) -> int:
    """Delete what a killed process left unfinished in the outputs more than ``hours`` ago; return how many files."""
    limit = (time.time() if now is None else now) - hours * 3600
    return _remove_old(folders.outputs, limit, PARTIAL)


def _remove_old(folder: Path, limit: float, suffix: str) -> int:
    removed = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                if name.endswith(suffix) and path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
    return removed


def _name(target: Target, settings: Settings) -> _Name:
    if target.kind == GRID:
        return _Name("grid-", f"-{target.facts.seed}", 4)
    pattern = target.pattern or ("" if target.spool else settings.samples_filename_pattern)
    pattern = pattern or _DEFAULT_PATTERN
    if NUMBER not in pattern:
        pattern = f"{NUMBER}-{pattern}"
    before, _, after = (patterns.cleaned(patterns.expand(part, target.facts)) for part in pattern.partition(NUMBER))
    after = patterns.shortened(after, _MAX_AFTER)
    separator = "-" if after[:1].isdigit() else ""
    after = (separator + after if after != "-" else "") + target.ending
    return _Name(patterns.shortened(before.lstrip(" ."), _MAX_BEFORE), after, 5)


def _publish(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no hard links. An empty file claims the name, then the picture takes its place.
        with path.open("xb"):
            pass
        try:
            os.replace(partial, path)
        except OSError:
            path.unlink()
            raise


def _explained(error: OSError, folder: Path) -> DarkroomError:
    if error.errno in _FULL:
        existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
        free = shutil.disk_usage(existing).free
        return DiskFull(f"The picture could not be saved in {folder}: the disk is full ({free / 1e6:.1f} MB free).",
                        "Free some space, or choose another folder with --output-dir.")
    return DarkroomError(f"The picture could not be saved in {folder}: {error.strerror or error}.",
                         "Check that the folder exists and may be written.")
