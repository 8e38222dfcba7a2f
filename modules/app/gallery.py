"""The index of outputs: every picture on disk with its infotext, found by words, in SQLite."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modules.app.database import Database
from modules.core.errors import DarkroomError, NotFound
from modules.core.result import SavedImage
from modules.library.images import ImageInfo
from modules.library.walk import is_text, walk

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
BATCH = 200

MIGRATIONS = ("""
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, infotext TEXT NOT NULL, job TEXT NOT NULL, created REAL NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL);
CREATE INDEX pictures_created ON pictures (created)
""",)
_WORDS = (
    "CREATE VIRTUAL TABLE words USING fts5 (infotext, path, content='pictures', content_rowid='id')",
    "CREATE TRIGGER words_in AFTER INSERT ON pictures BEGIN "
    "INSERT INTO words (rowid, infotext, path) VALUES (new.id, new.infotext, new.path); END",
    "CREATE TRIGGER words_out AFTER DELETE ON pictures BEGIN "
    "INSERT INTO words (words, rowid, infotext, path) VALUES ('delete', old.id, old.infotext, old.path); END",
)
_COLUMNS = "p.id, p.path, p.kind, p.width, p.height, p.infotext, p.job, p.created"


@dataclass(frozen=True)
class Entry:
    """A picture in the index. ``created`` is in seconds since the epoch; ``job`` is empty for files found on disk."""

    id: int
    path: str
    kind: str
    width: int
    height: int
    infotext: str
    job: str
    created: float


class Gallery:
    """Pictures below ``roots``. ``read`` opens one file and raises ``DarkroomError`` or ``OSError`` if it cannot.

    Thread-safe. Files found on disk are indexed in a background thread; those we save are added at once.
    """

    def __init__(self, path: Path, roots: Sequence[Path], read: Callable[[Path], ImageInfo]) -> None:
        self._database = Database(path, MIGRATIONS)
        self._roots = tuple(Path(root) for root in roots)
        self._read = read
        self._words = _prepare_words(self._database)
        self._closing = threading.Event()
        self._scan: threading.Thread | None = None
        self._scan_lock = threading.Lock()

    def close(self) -> None:
        """Stop scanning and close the file."""
        self._closing.set()
        if self._scan is not None:
            self._scan.join()
        self._database.close()

    def add(self, image: SavedImage, job_id: str = "") -> None:
        """Index a picture that was just saved; one that has vanished is passed over."""
        path = Path(image.path)
        try:
            found = path.stat()
        except FileNotFoundError:
            return
        info = ImageInfo(image.infotext, width=image.width, height=image.height)
        with self._database.write() as connection:
            _replace(connection, str(path), found, image.kind, info, job_id)

    def search(self, text: str = "", limit: int = 60, offset: int = 0) -> list[Entry]:
        """Return pictures, latest first, whose infotext or path holds every word of ``text`` (or its beginning)."""
        source, values = self._matching(text)
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM {source} ORDER BY p.created DESC, p.id DESC LIMIT ? OFFSET ?",
            (*values, limit, offset))
        return [Entry(*row) for row in rows]

    def count(self, text: str = "") -> int:
        """Return how many pictures ``search`` would find."""
        source, values = self._matching(text)
        return int(self._database.read(f"SELECT COUNT(*) FROM {source}", values)[0][0])

    def get(self, picture_id: int) -> Entry:
        """Return one picture; raises ``NotFound``."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM pictures p WHERE p.id = ?", (picture_id,))
        if not rows:
            raise NotFound(f"There is no picture {picture_id} in the gallery.")
        return Entry(*rows[0])

    def known(self, path: str) -> bool:
        """Return whether ``path`` is a picture in the index."""
        return bool(self._database.read("SELECT 1 FROM pictures WHERE path = ?", (path,)))

    def delete(self, picture_id: int) -> None:
        """Remove a picture from the disk and the index; raises ``NotFound``."""
        entry = self.get(picture_id)
        Path(entry.path).unlink(missing_ok=True)
        with self._database.write() as connection:
            connection.execute("DELETE FROM pictures WHERE id = ?", (picture_id,))

    def rescan(self, *, wait: bool = False) -> None:
        """Index files that appeared, changed or vanished on disk, in the background unless ``wait``."""
        with self._scan_lock:
            if self._scan is None or not self._scan.is_alive():
                self._scan = threading.Thread(target=self._scan_roots, name="gallery", daemon=True)
                self._scan.start()
            scan = self._scan
        if wait:
            scan.join()

    def _scan_roots(self) -> None:
        try:
            known = {row["path"]: (row["size"], row["mtime_ns"])
                     for row in self._database.read("SELECT path, size, mtime_ns FROM pictures")}
            seen: set[str] = set()
            changed = self._changed(known, seen)
            while batch := tuple(islice(changed, BATCH)):
                with self._database.write() as connection:
                    for path, found, info in batch:
                        _replace(connection, path, found, kind_of(path), info, "")
            if not self._closing.is_set():
                self._drop(path for path in known if path not in seen)
        except DarkroomError:
            logger.exception("The gallery could not be brought up to date.")

    def _changed(self, known: Mapping[str, tuple[int, int]], seen: set[str]
                 ) -> Iterator[tuple[str, os.stat_result, ImageInfo]]:
        for path, found in pictures_below(self._roots):
            if self._closing.is_set():
                return
            seen.add(path)
            if known.get(path) == (found.st_size, found.st_mtime_ns):
                continue
            try:
                yield path, found, self._read(Path(path))
            except (DarkroomError, OSError) as error:
                logger.info("%s is not indexed: %s", path, error)

    def _drop(self, paths: Iterator[str]) -> None:
        gone = [(path,) for path in paths if not os.path.exists(path)]
        with self._database.write() as connection:
            connection.executemany("DELETE FROM pictures WHERE path = ?", gone)

    def _matching(self, text: str) -> tuple[str, tuple[str, ...]]:
        words = re.findall(r"\w+", text)
        if not words:
            return "pictures p", ()
        if self._words:
            query = " ".join(f'"{word}"*' for word in words)
            return "words w JOIN pictures p ON p.id = w.rowid WHERE words MATCH ?", (query,)
        conditions = " AND ".join("(p.infotext LIKE ? ESCAPE '\\' OR p.path LIKE ? ESCAPE '\\')" for _ in words)
        return f"pictures p WHERE {conditions}", tuple(like for word in words for like in (_like(word),) * 2)


def pictures_below(roots: Sequence[Path]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield pictures below ``roots`` with their status; hidden names and what vanishes meanwhile are passed over."""
    for here in walk(roots, lambda entry: entry.is_dir(follow_symlinks=False)):
        for entry in here.entries.values():
            with contextlib.suppress(OSError):
                if entry.name.lower().endswith(SUFFIXES) and is_text(entry.path) \
                        and not entry.is_dir(follow_symlinks=False):
                    yield entry.path, entry.stat()


def kind_of(path: str) -> str:
    """Return ``grid`` for a file named like one, else ``picture``."""
    return "grid" if os.path.basename(path).startswith("grid-") else "picture"


def _replace(connection: sqlite3.Connection, path: str, found: os.stat_result, kind: str, info: ImageInfo,
             job_id: str) -> None:
    row = connection.execute("SELECT id, job FROM pictures WHERE path = ?", (path,)).fetchone()
    if row is not None:
        job_id = job_id or row["job"]
        connection.execute("DELETE FROM pictures WHERE id = ?", (row["id"],))
    connection.execute(
        "INSERT INTO pictures (path, kind, width, height, infotext, job, created, size, mtime_ns) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (path, kind, info.width, info.height, info.infotext, job_id, found.st_mtime, found.st_size,
         found.st_mtime_ns))


def _prepare_words(database: Database) -> bool:
    """Make the full-text index where this SQLite can; return whether there is one."""
    if database.read("SELECT 1 FROM sqlite_master WHERE name = 'words'"):
        return True
    if not database.read("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'"):
        return False
    with database.write() as connection:
        for statement in _WORDS:
            connection.execute(statement)
        connection.execute("INSERT INTO words (words) VALUES ('rebuild')")
    return True


def _like(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
