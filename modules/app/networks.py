"""The index of networks: checkpoints, LoRAs, embeddings and hypernetworks on disk, found by words, in SQLite."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from modules.app.covers import Covers, embedded_cover
from modules.app.database import Database
from modules.core.errors import DarkroomError, Forbidden, InvalidRequest, NotFound
from modules.families.compatibility import family_of
from modules.library.files import CHECKPOINT, Folders
from modules.library.headers import Header, read_header
from modules.library.network_files import NETWORKS, PICTURES, NetworkFile, network_file, network_files
from modules.library.sidecars import MAX_TEXT, Texts, plain, read_texts, write_sidecar
from modules.library.writing import write_whole

logger = logging.getLogger(__name__)

BATCH = 200
SHOWN_TEXT, SEARCHED_TEXT = 300, 20_000
TRIGRAM = 3
SORTS: Mapping[str, str] = {"name": "name COLLATE NOCASE", "path": "file COLLATE NOCASE", "date": "modified"}

MIGRATIONS = ("""
CREATE TABLE networks (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL, file TEXT NOT NULL, name TEXT NOT NULL,
    folder TEXT NOT NULL, size INTEGER NOT NULL, modified REAL NOT NULL, stamp TEXT NOT NULL, family TEXT NOT NULL,
    version TEXT NOT NULL, description TEXT NOT NULL, activation TEXT NOT NULL, negative TEXT NOT NULL,
    weight REAL NOT NULL, cover TEXT NOT NULL, thumbnail TEXT NOT NULL, words TEXT NOT NULL, UNIQUE (kind, path));
CREATE INDEX networks_name ON networks (kind, name COLLATE NOCASE, id);
CREATE INDEX networks_file ON networks (kind, file COLLATE NOCASE, id);
CREATE INDEX networks_modified ON networks (kind, modified, id);
CREATE INDEX networks_folder ON networks (kind, folder, family)
""",)
_WORDS = (
    "CREATE VIRTUAL TABLE word_index USING fts5 (words, content='networks', content_rowid='id', tokenize='trigram')",
    "CREATE TRIGGER words_in AFTER INSERT ON networks BEGIN "
    "INSERT INTO word_index (rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER words_out AFTER DELETE ON networks BEGIN "
    "INSERT INTO word_index (word_index, rowid, words) VALUES ('delete', old.id, old.words); END",
    "CREATE TRIGGER words_anew AFTER UPDATE ON networks BEGIN "
    "INSERT INTO word_index (word_index, rowid, words) VALUES ('delete', old.id, old.words); "
    "INSERT INTO word_index (rowid, words) VALUES (new.id, new.words); END",
)


@dataclass(frozen=True)
class Details:
    """What a network's header, sidecars and cover tell; texts are those to show and to search."""

    family: str = ""
    version: str = ""
    description: str = ""
    activation: str = ""
    negative: str = ""
    weight: float = 0.0
    cover: str = ""
    thumbnail: str = ""
    words: str = ""


@dataclass(frozen=True)
class Network:
    """A network in the index.

    ``file`` is its path below the folder of its kind, ``name`` that without folders and suffix, which prompts use.
    ``family`` is empty where it is unknown. ``description`` is its beginning; ``weight`` is 0 where none is preferred.
    ``thumbnail`` names the cover's small picture and changes with it, empty without one.
    """

    id: int
    kind: str
    path: str
    file: str
    name: str
    folder: str
    size: int
    modified: float
    family: str
    version: str
    description: str
    activation: str
    negative: str
    weight: float
    cover: str
    thumbnail: str


@dataclass(frozen=True)
class Query:
    """Which networks of ``kind``: whose texts hold every word of ``text``, below ``folder``, that fit ``family``.

    Those of unknown family fit each; an empty ``family`` takes all. ``sort`` is ``name``, ``path`` or ``date``.
    """

    kind: str
    text: str = ""
    folder: str = ""
    family: str = ""
    sort: str = "name"
    descending: bool = False


_COLUMNS = ", ".join(f"n.{item.name}" for item in fields(Network))
_STORED = ("kind", "path", "file", "name", "folder", "size", "modified", "stamp", *(f.name for f in fields(Details)))


class Networks:
    """The networks in the configured folders. Thread-safe.

    Nothing is read before ``rescan``, which works in the background; ``read`` describes one file and is asked only
    where the file, a sidecar or its cover has changed. An id stays with its file as long as that is there.
    """

    def __init__(self, path: Path, folders: Folders, read: Callable[[NetworkFile], Details] | None = None) -> None:
        self._database = Database(path, MIGRATIONS)
        self._folders = folders
        self._read = read or describe
        self._trigrams = _prepare_words(self._database)
        self._covers = Covers(folders.cache / "networks")
        self._closing = threading.Event()
        self._again = False
        self._scan: threading.Thread | None = None
        self._scan_lock, self._edit_lock = threading.Lock(), threading.Lock()
        self.revision = 0

    def close(self) -> None:
        """Stop scanning and close the file."""
        self._closing.set()
        self._covers.close()
        scan = self._scan
        if scan is not None:
            scan.join()
        self._database.close()

    def search(self, query: Query, limit: int = 60, offset: int = 0) -> list[Network]:
        """Return the networks that ``query`` asks for, in its order; raises ``InvalidRequest`` for an unknown one."""
        source, values = self._matching(query)
        rows = self._database.read(f"SELECT {_COLUMNS} FROM {source} {_order(query)} LIMIT ? OFFSET ?",
                                   (*values, limit, offset))
        return [Network(*row) for row in rows]

    def page(self, query: Query, limit: int = 60, offset: int = 0) -> tuple[list[Network], int]:
        """Return what ``search`` finds and ``count`` counts; a text is looked for but once."""
        if not _searched(query.text):
            return self.search(query, limit, offset), self.count(query)
        source, values = self._matching(query)
        ids = [row[0] for row in self._database.read(f"SELECT n.id FROM {source} {_order(query)}", values)]
        shown = ids[offset:offset + limit]
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM networks n WHERE n.id IN ({', '.join('?' * len(shown))})", shown)
        found = {row["id"]: Network(*row) for row in rows}
        return [found[one] for one in shown if one in found], len(ids)

    def count(self, query: Query) -> int:
        """Return how many networks ``search`` would find."""
        source, values = self._matching(query)
        return int(self._database.read(f"SELECT COUNT(*) FROM {source}", values)[0][0])

    def folders(self, kind: str) -> dict[str, int]:
        """Return the folders that hold networks of ``kind``, with how many lie directly in each."""
        rows = self._database.read(
            "SELECT folder, COUNT(*) FROM networks WHERE kind = ? GROUP BY folder ORDER BY folder COLLATE NOCASE",
            (kind,))
        return {row[0]: row[1] for row in rows}

    def get(self, network_id: int) -> Network:
        """Return one network; raises ``NotFound``."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM networks n WHERE n.id = ?", (network_id,))
        if not rows:
            raise NotFound(f"There is no network {network_id}.", "Refresh the list.")
        return Network(*rows[0])

    def family(self, checkpoint: str) -> str:
        """Return the family of the checkpoint of this name or title, of the first for an empty one.

        It is empty where it is unknown, or the index does not have the checkpoint.
        """
        name = checkpoint.split(" [")[0]
        rows = self._database.read(
            "SELECT family FROM networks WHERE kind = ? AND ? IN ('', file) ORDER BY file COLLATE NOCASE LIMIT 1",
            (CHECKPOINT, name))
        return str(rows[0][0]) if rows else ""

    def texts(self, network_id: int) -> Texts:
        """Return what lies beside a network, read now; raises ``NotFound``."""
        return read_texts(self._located(self.get(network_id)).base)

    def edit(self, network_id: int, changes: Mapping[str, Any]) -> Network:
        """Change fields of a network's ``.json`` and return its row.

        Raises ``NotFound``, ``Forbidden`` for one that comes with the program, and what ``write_sidecar`` raises.
        """
        with self._edit_lock:
            found = self._writable(network_id)
            write_sidecar(found.base, changes)
            return self._indexed(found)

    def set_cover(self, network_id: int, picture: bytes) -> Network:
        """Make ``picture``, a PNG, the cover of a network and return its row; raises as ``edit``."""
        with self._edit_lock:
            found = self._writable(network_id)
            own = found.path.lower().endswith(PICTURES)  # an embedding in a picture is not painted over
            write_whole(Path(f"{found.base}.preview.png" if own else f"{found.base}.png"), picture)
            return self._indexed(found)

    def thumbnail(self, network_id: int) -> Path:
        """Return the small picture of a network's cover, made now where it is not; raises ``NotFound``."""
        row = self.get(network_id)
        return self._covers.thumbnail(row.cover, row.thumbnail)

    @property
    def scanning(self) -> bool:
        """Whether the folders are being looked through."""
        scan = self._scan
        return scan is not None and scan.is_alive()

    def rescan(self, *, wait: bool = False) -> None:
        """Index files that appeared, changed or vanished on disk, in the background unless ``wait``."""
        with self._scan_lock:
            self._again = True
            if not self.scanning:
                self._scan = threading.Thread(target=self._scan_while_asked, name="networks", daemon=True)
                self._scan.start()
            scan = self._scan
        if wait and scan is not None:
            scan.join()

    def _scan_while_asked(self) -> None:
        while True:
            with self._scan_lock:
                if not self._again or self._closing.is_set():
                    self._scan = None
                    return
                self._again = False
            try:
                self._scan_folders()
            except DarkroomError:
                logger.exception("The index of networks could not be brought up to date.")

    def _scan_folders(self) -> None:
        known = {(row["kind"], row["path"]): row["stamp"]
                 for row in self._database.read("SELECT kind, path, stamp FROM networks")}
        seen: set[tuple[str, str]] = set()
        changed = self._changed(known, seen)
        while batch := tuple(islice(changed, BATCH)):
            with self._database.write() as connection:
                for found, details in batch:
                    _store(connection, found, details)
            self.revision += 1
        gone = [key for key in known if key not in seen]
        if self._closing.is_set():
            return
        if gone:
            with self._database.write() as connection:
                connection.executemany("DELETE FROM networks WHERE kind = ? AND path = ?", gone)
            self.revision += 1
        rows = self._database.read("SELECT cover, thumbnail FROM networks WHERE thumbnail <> ''")
        self._covers.make_all({row["thumbnail"]: row["cover"] for row in rows})

    def _changed(self, known: Mapping[tuple[str, str], str], seen: set[tuple[str, str]]
                 ) -> Iterator[tuple[NetworkFile, Details]]:
        for found in (found for kind in NETWORKS for found in self._files(kind)):
            if self._closing.is_set():
                return
            key = (found.kind, found.path)
            if key in seen:
                continue
            seen.add(key)
            if known.get(key) != found.stamp:
                yield found, self._described(found)

    def _described(self, found: NetworkFile) -> Details:
        try:
            return self._read(found)
        except Exception:  # noqa: BLE001 - one odd file must not hide all others
            logger.exception("%s is listed by its name alone.", found.path)
            return Details(words=_folded(found.name))

    def _files(self, kind: str) -> Iterator[NetworkFile]:
        single = self._folders.checkpoint_files if kind == CHECKPOINT else ()
        return network_files(kind, self._folders.of(kind), single)

    def _located(self, row: Network) -> NetworkFile:
        found = network_file(row.kind, row.file, row.path)
        if found is None:
            raise NotFound(f"{row.name} does not exist any more.", "Refresh the list.")
        return found

    def _writable(self, network_id: int) -> NetworkFile:
        found = self._located(self.get(network_id))
        # The usual folder of checkpoints is also one of those that the program comes with; there it is the user's.
        shipped = (folder for folder in self._folders.bundled
                   if found.kind != CHECKPOINT or not folder.is_relative_to(self._folders.models_dir))
        if any(Path(found.path).is_relative_to(folder) for folder in shipped):
            raise Forbidden(f"{found.stem} comes with the program and is only read.")
        return found

    def _indexed(self, before: NetworkFile) -> Network:
        found = network_file(before.kind, before.name, before.path) or before
        with self._database.write() as connection:
            network_id = _store(connection, found, self._described(found))
        self.revision += 1
        return self.get(network_id)

    def _matching(self, query: Query) -> tuple[str, tuple[Any, ...]]:
        conditions: list[tuple[str, Any]] = [("n.kind = ?", (query.kind,))]
        if query.folder:
            below = f"{query.folder}/"
            conditions.append(("(n.folder = ? OR substr(n.folder, 1, ?) = ?)", (query.folder, len(below), below)))
        if query.family:
            conditions.append(("n.family IN ('', ?)", (query.family,)))
        words = _searched(query.text)
        source = "networks n"
        if words and self._trigrams and min(map(len, words)) >= TRIGRAM:
            phrases = " AND ".join('"{}"'.format(word.replace('"', '""')) for word in words)
            conditions.append(("n.id IN (SELECT rowid FROM word_index WHERE word_index MATCH ?)", (phrases,)))
        elif words:
            conditions += [("instr(n.words, ?)", (word,)) for word in words]
            source += " NOT INDEXED"  # reading every text is four times as fast in the table's own order
        given = tuple(value for _, values in conditions for value in values)
        return f"{source} WHERE {' AND '.join(text for text, _ in conditions)}", given


def describe(found: NetworkFile) -> Details:
    """Return what a file's header and what lies beside it tell; what is damaged is passed over."""
    header, texts = _header(found), read_texts(found.base)
    metadata: Mapping[str, str] = header.metadata if header else {}
    told = texts.shown
    family = family_of(found.kind, header, texts.own.version, (texts.found.version,))
    description = told.description or plain(metadata.get("modelspec.description", "")[:MAX_TEXT])
    title = texts.title or metadata.get("modelspec.title", "")
    cover, stamp = found.cover, found.cover_stamp
    if not cover and embedded_cover(metadata):
        cover, stamp = found.path, f"{found.size}:{found.mtime_ns}"
    words = " ".join((found.name, title, told.version, told.activation, description, told.notes))
    return Details(
        family, told.version, description[:SHOWN_TEXT], told.activation, told.negative, told.weight, cover,
        _digest(cover, stamp) if cover else "", _folded(words)[:SEARCHED_TEXT])


def _digest(*parts: str) -> str:
    """Return a short name that changes with any of ``parts``."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _header(found: NetworkFile) -> Header | None:
    """Return the header of safetensors, None for other files: a pickle is not even parsed to be listed."""
    path = Path(found.path)
    if not found.path.lower().endswith(".safetensors") and not next(path.glob("unet/*.safetensors"), None):
        return None
    try:
        return read_header(path)
    except (DarkroomError, OSError) as error:
        logger.info("%s is listed by its name alone: %s", path, error)
        return None


def _order(query: Query) -> str:
    if query.sort not in SORTS:
        raise InvalidRequest(f"Networks are sorted by {', '.join(SORTS)}.")
    direction = "DESC" if query.descending else "ASC"
    return f"ORDER BY n.{SORTS[query.sort]} {direction}, n.id {direction}"


def _folded(text: str) -> str:
    """Return ``text`` as it is compared; SQLite would take a zero for its end, and no half of a character."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode().casefold()


def _searched(text: str) -> list[str]:
    return list(dict.fromkeys(_folded(text[:SHOWN_TEXT]).split()))


def _store(connection: sqlite3.Connection, found: NetworkFile, details: Details) -> int:
    """Write a row, in place of the one of the same file, and return its id."""
    values = (found.kind, found.path, found.name, found.stem, found.folder, found.size, found.mtime_ns / 1e9,
              found.stamp, *astuple(details))
    kept = ", ".join(f"{column} = excluded.{column}" for column in _STORED[2:])
    row = connection.execute(
        f"INSERT INTO networks ({', '.join(_STORED)}) VALUES ({', '.join('?' * len(_STORED))}) "
        f"ON CONFLICT (kind, path) DO UPDATE SET {kept} RETURNING id", values).fetchall()
    return int(row[0][0])


def _prepare_words(database: Database) -> bool:
    """Make the index of all groups of three letters where this SQLite can; return whether there is one."""
    if database.read("SELECT 1 FROM sqlite_master WHERE name = 'word_index'"):
        return True
    if sqlite3.sqlite_version_info < (3, 34) or not database.read(
            "SELECT 1 FROM pragma_module_list WHERE name = 'fts5'"):
        return False
    with database.write() as connection:
        for statement in _WORDS:
            connection.execute(statement)
        connection.execute("INSERT INTO word_index (word_index) VALUES ('rebuild')")
    return True
