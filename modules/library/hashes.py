"""Hashes of model files, computed once and remembered by path, size and time of change."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from modules.core.errors import InvalidModel
from modules.library.headers import MODEL_INDEX, weight_files
from modules.library.safetensors_format import data_offset

SHORT, ADDNET_SHORT = 10, 12

_CHUNK = 4 * 1024 * 1024
_SHA256, _ADDNET = "sha256", "addnet"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS hashes (
    path TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (path, kind)
) WITHOUT ROWID
"""


def _never() -> None:
    """The check of a computation that nobody cancels."""


def short_hash(sha256: str) -> str:
    """Return the first ten digits of a sha256, which is what titles and infotexts show."""
    return sha256[:SHORT]


def file_sha256(path: Path, check: Callable[[], None] = _never, offset: int = 0) -> str:
    """Return the sha256 of ``path`` from byte ``offset`` on, in hexadecimal.

    ``check`` is called every 4 MiB and raises to cancel. Raises ``OSError`` where the file cannot be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while count := file.readinto(buffer):
            check()
            digest.update(buffer[:count])
    return digest.hexdigest()


def legacy_hash(path: Path) -> str:
    """Return the eight digits with which A1111 named a checkpoint before it used sha256.

    They are from the sha256 of 64 KiB that begin 1 MiB into the file. Empty for a folder or an unreadable file.
    """
    try:
        with path.open("rb") as file:
            file.seek(0x100000)
            return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    except OSError:
        return ""


class HashCache:
    """Hashes in an SQLite file; safe to use from several threads and processes.

    A file that is no database, or a damaged one, is begun anew: everything in it can be computed again. Where no
    file can be written, hashes are remembered for as long as this object lives.
    """

    def __init__(self, database: Path) -> None:
        self._lock = threading.Lock()
        self._computing = threading.Lock()
        self._connection = _open(database)

    def cached(self, path: Path) -> str | None:
        """Return the sha256 of a file or diffusers folder if it is known and the file has not changed since."""
        return self._lookup(path, _SHA256)

    def cached_addnet(self, path: Path) -> str | None:
        """Return what ``addnet`` would, if it is known and the file has not changed since."""
        return self._lookup(path, _ADDNET)

    def sha256(self, path: Path, check: Callable[[], None] = _never) -> str:
        """Return the sha256, computing it if need be: 64 digits.

        That of a diffusers folder is over the lines ``name sha256`` of its weight files. ``check`` is called often
        and raises to cancel. Raises ``OSError`` where the file cannot be read.
        """
        return self._get(path, _SHA256, check)

    def addnet(self, path: Path, check: Callable[[], None] = _never) -> str:
        """Return the sha256 over the tensors' bytes of a safetensors file: the hash that LoRAs are known by.

        Infotexts show its first twelve digits. It does not change when only the metadata is edited. For a file that
        is not safetensors it is the plain sha256.
        """
        return self._get(path, _ADDNET, check)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def _get(self, path: Path, kind: str, check: Callable[[], None]) -> str:
        known = self._lookup(path, kind)
        if known:
            return known
        # One at a time: reading two large files at once is slower, and two callers often want the same one.
        while not self._computing.acquire(timeout=0.1):
            check()
        try:
            return self._lookup(path, kind) or self._compute(path, kind, check)
        finally:
            self._computing.release()

    def _compute(self, path: Path, kind: str, check: Callable[[], None]) -> str:
        before = _state(path)
        value = _folder_sha256(path, check) if path.is_dir() else file_sha256(path, check, _start(path, kind))
        if before == _state(path):
            with self._lock, suppress(sqlite3.Error), self._connection:
                self._connection.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)",
                                         (str(path), kind, *before, value))
        return value

    def _lookup(self, path: Path, kind: str) -> str | None:
        try:
            state = _state(path)
            with self._lock, closing(self._connection.execute(
                "SELECT value FROM hashes WHERE path = ? AND kind = ? AND size = ? AND mtime_ns = ?",
                (str(path), kind, *state),
            )) as rows:
                row = rows.fetchone()
        except (OSError, sqlite3.Error, InvalidModel):
            return None
        return row[0] if row else None


def _open(database: Path) -> sqlite3.Connection:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        return _connect(str(database))
    except (sqlite3.OperationalError, OSError):
        # A locked or read-only place is not damaged: what others wrote there stays.
        return _connect(":memory:")
    except sqlite3.DatabaseError:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{database}{suffix}").unlink(missing_ok=True)
        return _connect(str(database))


def _connect(database: str) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=10.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_SCHEMA)
        connection.commit()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _state(path: Path) -> tuple[int, int]:
    files = _weights(path) if path.is_dir() else (path,)
    statuses = [file.stat() for file in files]
    return sum(status.st_size for status in statuses), max((status.st_mtime_ns for status in statuses), default=0)


def _weights(folder: Path) -> tuple[Path, ...]:
    if not (folder / MODEL_INDEX).is_file():
        return weight_files(folder)
    parts = sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith("."))
    return tuple(file for part in parts for file in weight_files(part))


def _folder_sha256(folder: Path, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    for file in _weights(folder):
        digest.update(f"{file.relative_to(folder).as_posix()} {file_sha256(file, check)}\n".encode())
    return digest.hexdigest()


def _start(path: Path, kind: str) -> int:
    if kind != _ADDNET:
        return 0
    try:
        with path.open("rb") as file:
            return data_offset(file)
    except InvalidModel:
        return 0
