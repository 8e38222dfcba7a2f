"""SQLite as this program uses it: one writer at a time, write-ahead log, numbered migrations, readable errors."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modules.core.errors import DarkroomError, DiskFull


class Database:
    """One file, shared by all threads of a process through one lock and one connection.

    ``migrations`` are SQL scripts; the file's ``user_version`` counts those already applied, so a newer program
    brings an older file up to date. A file of a still newer program is refused.

    The log is synchronised when it is folded into the file (``synchronous=NORMAL``): a killed process loses nothing
    that was committed, and a commit costs no disk flush. A power cut may lose the last commits, never the file.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        with readable_errors(path):
            self._connection = _connect(path)
        try:
            self._migrate(migrations)
        except BaseException:
            self._connection.close()
            raise

    def read(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with self._lock, readable_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction: all of it is there afterwards or, after an exception, nothing.

        Raises ``DiskFull`` for want of space and ``DarkroomError`` for other failures of the file.
        """
        with self._lock, readable_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; nothing may be read or written afterwards."""
        with self._lock:
            self._connection.close()

    def _migrate(self, migrations: Sequence[str]) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise DarkroomError(f"{self.path} was written by a newer version of this program.",
                                "Update the program, or start it with another --data-dir.")
        for number, script in enumerate(migrations[version:], version + 1):
            with self.write() as connection:
                for statement in filter(str.strip, script.split(";\n")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")


def hold(path: Path) -> sqlite3.Connection:
    """Claim ``path`` for this process until the connection is closed or the process ends, however it ends.

    Raises ``DarkroomError`` where another process holds it for more than five seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5.0)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
            raise DarkroomError(f"This program already runs on {path.parent}.",
                                "Close it, or give this one a --data-dir of its own.") from error
        raise DarkroomError(f"{path} could not be used: {error}.", "Check the folder's permissions.") from error
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into those a user can read."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            raise DiskFull(f"{path} could not be written: the disk is full.",
                           "Free some space; finished pictures are safe.") from error
        raise DarkroomError(f"{path} could not be used: {error}.",
                            "If the file is damaged, move it away; a new one is made.") from error
