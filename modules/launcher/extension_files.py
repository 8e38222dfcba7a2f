"""The files of a fetched extension: how many, how large and called what they may be, and how they are written."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modules.core.errors import DiskFull, InvalidRequest

# Names relative to the extension's folder, each with the file's content.
Files = Sequence[tuple[PurePosixPath, bytes]]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Limits:
    """The most that an extension may have: bytes in all, and entries, folders among them."""

    size: int = 200 * 1024 * 1024
    count: int = 10_000

    def check(self, count: int, size: int) -> None:
        """Raise ``InvalidRequest`` where ``count`` entries of ``size`` bytes in all are too much."""
        if count > self.count or size > self.size:
            raise self.exceeded()

    def exceeded(self) -> InvalidRequest:
        """Return the error that is raised where there is more."""
        return InvalidRequest(f"It has more than {self.count:,} files or {self.size:,} bytes.",
                              "An extension is a program; models belong in the folders of models.")


LIMITS = Limits()


def safe_path(name: str) -> PurePosixPath:
    """Return the path that an archive or a repository names; raises ``InvalidRequest`` for one that leads elsewhere."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or any(part == ".." or ":" in part for part in path.parts):
        raise InvalidRequest(f"It has a path that leads elsewhere: {name[:200]!r}.")
    if not str(path).isprintable():
        raise InvalidRequest(f"It has a path that cannot be shown: {name[:200]!r}.")
    return path


def put(files: Files, folder: Path) -> None:
    """Write ``files`` into ``folder``, which is empty.

    Raises ``InvalidRequest`` for a name that is too long, or that of a file and of a folder, and ``DiskFull``.
    """
    for name, content in files:
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise DiskFull("The disk is full.", "Free some space.") from error
            raise InvalidRequest(f"{str(name)[:200]!r} cannot be written here: {error.strerror}.") from error
