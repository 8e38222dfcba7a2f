"""The durable queue: every job is a row before anything runs and stays one until its history is pruned."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modules.app.database import Database, hold
from modules.core import codec
from modules.core.job import CANCELLED, ENDED, FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING, Job
from modules.core.request import INPUT_ID, Request
from modules.core.result import Failure, Part, SavedImage
from modules.core.task import Task

MIGRATIONS = ("""
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, top TEXT NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL,
    owner TEXT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL, blocking INTEGER NOT NULL,
    position REAL NOT NULL, created REAL NOT NULL, started REAL NOT NULL DEFAULT 0, ended REAL NOT NULL DEFAULT 0,
    pictures INTEGER NOT NULL, tags TEXT NOT NULL, warnings TEXT NOT NULL, failure TEXT,
    request TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX jobs_order ON jobs (state, position, part);
CREATE INDEX jobs_top ON jobs (top, part);
CREATE INDEX jobs_ended ON jobs (ended);
CREATE TABLE images (
    number INTEGER PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, top TEXT NOT NULL,
    path TEXT NOT NULL, image TEXT NOT NULL, UNIQUE (job, path));
CREATE INDEX images_top ON images (top, number);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)
""", """
ALTER TABLE jobs ADD COLUMN result TEXT NOT NULL DEFAULT '{}'
""", """
ALTER TABLE jobs ADD COLUMN gathers INTEGER NOT NULL DEFAULT 0
""")

# The key of the job that was last asked to stop: it may not have heard of it when the process ends.
STOPPED = "stopped"
# Of all parts of a job together; each has its own all the same.
MOST_WARNINGS = 100
_COLUMNS = ("id, top, part, parts, owner, origin, state, blocking, position, created, started, ended, tags, warnings, "
            "failure, request, result")
_LISTED = """
SELECT id FROM jobs WHERE part = 0 {conditions}
ORDER BY CASE state WHEN 'running' THEN 0 WHEN 'queued' THEN 1 ELSE 2 END,
         CASE state WHEN 'queued' THEN position ELSE -ended END LIMIT ? OFFSET ?"""
_RUNNABLE = "state = 'queued' AND parts = 0"
# What the others have made is still put together where a job is stopped in the middle.
_KEPT = """gathers AND EXISTS (SELECT 1 FROM images WHERE images.top = jobs.top)
AND EXISTS (SELECT 1 FROM jobs AS other WHERE other.top = jobs.top AND other.parts = 0 AND other.state = 'running')"""


@dataclass(frozen=True)
class Share:
    """How far the parts of a job are: ``ended`` of ``parts``, and pictures asked for by those and by all."""

    parts: int
    ended: int
    pictures_ended: int
    pictures: int


class JobStore:
    """Jobs in one SQLite file. A job that was expanded is a row with ``parts`` children; only children run.

    Listings and ids seen by users are those of top-level jobs, whose state, images, failure and warnings sum up
    their children. Thread-safe; every method is one transaction.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)
        self._claim: sqlite3.Connection | None = None

    def claim(self) -> None:
        """Make sure that no other process runs these jobs; raises ``DarkroomError`` where one does."""
        self._claim = hold(self._database.path.with_suffix(".lock"))

    def close(self) -> None:
        """Close the file, and let another process run these jobs."""
        self._database.close()
        if self._claim is not None:
            self._claim.close()

    def add(self, job: Job, children: Sequence[Job] = ()) -> Job:
        """Write ``job`` (and its children) at the end of the queue; return it with its position.

        Raises ``sqlite3.IntegrityError`` as ``DarkroomError`` where the id exists; see ``exists``.
        """
        with self._database.write() as connection:
            (last,) = connection.execute("SELECT MAX(position) FROM jobs WHERE state = 'queued'").fetchone()
            job = replace(job, position=(last or 0.0) + 1.0)
            _insert(connection, job, job.id, 0, len(children))
            for part, child in enumerate(children, 1):
                _insert(connection, replace(child, position=job.position, parent=job.id), job.id, part, 0)
        return job

    def exists(self, job_id: str) -> bool:
        """Return whether there is a job of this id."""
        return bool(self._database.read("SELECT 1 FROM jobs WHERE id = ?", (job_id,)))

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        found = self._jobs([job_id])
        return found[0] if found else None

    def listed(self, owner: str | None = None, states: Iterable[str] | None = None, limit: int = 100,
               offset: int = 0) -> list[Job]:
        """Return top-level jobs: the running one, those queued in order, then the ended, latest first."""
        conditions, values = _conditions(owner, states)
        rows = self._database.read(_LISTED.format(conditions=conditions), (*values, limit, offset))
        return self._jobs([row["id"] for row in rows])

    def count(self, owner: str | None = None, states: Iterable[str] | None = None) -> int:
        """Return how many top-level jobs there are."""
        conditions, values = _conditions(owner, states)
        return int(self._database.read(f"SELECT COUNT(*) FROM jobs WHERE part = 0 {conditions}", values)[0][0])

    def children(self, job_id: str) -> list[Job]:
        """Return the jobs that ``job_id`` was expanded to, in order."""
        rows = self._database.read("SELECT id FROM jobs WHERE top = ? AND part > 0 ORDER BY part", (job_id,))
        return self._jobs([row["id"] for row in rows])

    def results(self, job_id: str) -> tuple[Part, ...]:
        """Return what the parts of a top-level job have come to, in order, but for one that gathers the others."""
        images: dict[str, list[SavedImage]] = {}
        for row in self._database.read("SELECT job, image FROM images WHERE top = ? ORDER BY number", (job_id,)):
            images.setdefault(row["job"], []).append(_image(row["image"]))
        rows = self._database.read(
            "SELECT id, state FROM jobs WHERE top = ? AND part > 0 AND NOT gathers ORDER BY part", (job_id,))
        return tuple(Part(row["state"], tuple(images.get(row["id"], ()))) for row in rows)

    def share(self, job_id: str) -> Share:
        """Return how far the parts of a top-level job are."""
        marks = _marks(ENDED)
        row = self._database.read(
            f"SELECT COUNT(*), COALESCE(SUM(state IN ({marks})), 0), "
            f"COALESCE(SUM((state IN ({marks})) * pictures), 0), COALESCE(SUM(pictures), 0) "
            "FROM jobs WHERE top = ? AND parts = 0", (*ENDED, *ENDED, job_id))[0]
        return Share(*row)

    def waited_for(self) -> list[Job]:
        """Return queued top-level jobs whose callers wait."""
        rows = self._database.read("SELECT id FROM jobs WHERE part = 0 AND blocking AND state = 'queued'")
        return self._jobs([row["id"] for row in rows])

    def next_queued(self) -> Job | None:
        """Return the job to run next, or None."""
        rows = self._database.read(f"SELECT id FROM jobs WHERE {_RUNNABLE} ORDER BY position, part LIMIT 1")
        return self.get(rows[0]["id"]) if rows else None

    def save(self, job: Job) -> None:
        """Write what changes of a job that runs or ends, new images with it, and sum up its parent."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, started = ?, ended = ?, failure = ?, warnings = ?, result = ? WHERE id = ?",
                (job.state, job.started, job.ended, _text(job.failure) if job.failure else None,
                 _text(job.warnings), _text(job.result), job.id))
            (known,) = connection.execute("SELECT COUNT(*) FROM images WHERE job = ?", (job.id,)).fetchone()
            connection.executemany(
                "INSERT OR IGNORE INTO images (job, top, path, image) VALUES (?, ?, ?, ?)",
                [(job.id, job.parent or job.id, image.path, _text(image)) for image in job.images[known:]])
            if job.parent:
                _sum_up(connection, job.parent, job)

    def cancel_queued(self, job_id: str, now: float) -> bool:
        """Take a top-level job's queued parts (or itself) out of the queue; return whether there were any.

        While one of them runs, a last part that gathers what the others have made stays.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                f"UPDATE jobs SET state = '{CANCELLED}', ended = ? WHERE top = ? AND {_RUNNABLE} AND NOT ({_KEPT})",
                (now, job_id)).rowcount
            if changed:
                _sum_up(connection, job_id, None, now)
        return changed > 0

    def move(self, job_id: str, before: str | None) -> bool:
        """Put a queued top-level job before another, or last; return whether both were queued."""
        with self._database.write() as connection:
            order = [row["id"] for row in connection.execute(
                "SELECT id FROM jobs WHERE part = 0 AND state IN ('queued', 'running') ORDER BY position, id")]
            if job_id not in order or (before is not None and before not in order):
                return False
            if before == job_id:
                return True
            order.remove(job_id)
            order.insert(len(order) if before is None else order.index(before), job_id)
            connection.executemany("UPDATE jobs SET position = ? WHERE top = ?",
                                   [(float(place), one) for place, one in enumerate(order, 1)])
        return True

    def delete(self, job_id: str) -> bool:
        """Forget an ended top-level job (its pictures stay on disk); return whether it was one."""
        with self._database.write() as connection:
            row = connection.execute("SELECT state FROM jobs WHERE id = ? AND part = 0", (job_id,)).fetchone()
            if row is None or row["state"] not in ENDED:
                return False
            connection.execute("DELETE FROM jobs WHERE top = ?", (job_id,))
        return True

    def mentioned(self) -> set[str]:
        """Return what may be the id of a stored picture in the request of any job."""
        rows = self._database.read("SELECT request FROM jobs")
        return {key for row in rows for key in INPUT_ID.findall(row["request"])}

    def prune(self, keep: int) -> int:
        """Forget the oldest ended top-level jobs beyond ``keep``; return how many."""
        with self._database.write() as connection:
            old = [row["id"] for row in connection.execute(
                f"SELECT id FROM jobs WHERE part = 0 AND state IN ({_marks(ENDED)}) "
                "ORDER BY ended DESC LIMIT -1 OFFSET ?", (*ENDED, keep))]
            connection.executemany("DELETE FROM jobs WHERE top = ?", [(one,) for one in old])
        return len(old)

    def recover(self, now: float) -> None:
        """Make sense of rows left by a process that ended in the middle.

        What ran is queued again, in front and with the pictures it has; jobs whose caller waited are cancelled, and
        one that was asked to stop has stopped.
        """
        stopped = self.meta(STOPPED)
        with self._database.write() as connection:
            gone = [row["top"] for row in connection.execute(
                "SELECT DISTINCT top FROM jobs WHERE blocking AND state IN ('queued', 'running')")]
            connection.executemany(
                f"UPDATE jobs SET state = '{CANCELLED}', ended = ? WHERE top = ? AND state IN ('queued', 'running')",
                [(now, one) for one in gone])
            connection.execute(
                f"UPDATE jobs SET state = '{INTERRUPTED}', ended = ? WHERE top = ? AND state IN ('queued', 'running')",
                (now, stopped))
            (first,) = connection.execute(
                "SELECT COALESCE(MIN(position), 1.0) - 1.0 FROM jobs WHERE state = 'queued'").fetchone()
            tops = [row["top"] for row in connection.execute(
                "SELECT DISTINCT top FROM jobs WHERE state = 'running'")]
            connection.executemany("UPDATE jobs SET position = ? WHERE top = ?", [(first, one) for one in tops])
            connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running' AND parts = 0")
            connection.execute("DELETE FROM meta WHERE name = ?", (STOPPED,))  # another job may have the id later

    def meta(self, name: str, default: str = "") -> str:
        """Return a value kept beside the jobs."""
        rows = self._database.read("SELECT value FROM meta WHERE name = ?", (name,))
        return rows[0]["value"] if rows else default

    def set_meta(self, name: str, value: str) -> None:
        """Keep a value beside the jobs."""
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _jobs(self, ids: Sequence[str]) -> list[Job]:
        marks = _marks(ids)
        rows = {row["id"]: row for row in self._database.read(
            f"SELECT {_COLUMNS} FROM jobs WHERE id IN ({marks})", tuple(ids))}
        images: dict[str, list[SavedImage]] = {}
        for row in self._database.read(
                f"SELECT job, top, image FROM images WHERE job IN ({marks}) OR top IN ({marks}) ORDER BY number",
                (*ids, *ids)):
            image = _image(row["image"])
            for one in {row["job"], row["top"]}:
                images.setdefault(one, []).append(image)
        return [_job(rows[one], images.get(one, ())) for one in ids if one in rows]


def _image(text: str) -> SavedImage:
    return codec.decode(SavedImage, json.loads(text), ignore_unknown=True)


def _insert(connection: sqlite3.Connection, job: Job, top: str, part: int, parts: int) -> None:
    request = job.request
    connection.execute(
        "INSERT INTO jobs (id, top, part, parts, owner, origin, state, blocking, position, created, pictures, tags, "
        "warnings, request, gathers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (job.id, top, part, parts, job.owner, job.origin, job.state, job.blocking, job.position, job.created,
         request.pictures, _text(job.tags), _text(job.warnings), _text(request),
         isinstance(request, Task) and request.gathers))


def _sum_up(connection: sqlite3.Connection, top: str, child: Job | None, now: float = 0.0) -> None:
    """Derive a parent's state from its children's; ``child`` is the one that changed."""
    counts: Mapping[str, int] = dict(connection.execute(
        "SELECT state, COUNT(*) FROM jobs WHERE top = ? AND part > 0 GROUP BY state", (top,)).fetchall())
    if not counts:
        return
    state = summary(counts)
    ended = (child.ended if child else now) if state in ENDED else 0.0
    connection.execute("UPDATE jobs SET state = ?, ended = ? WHERE id = ?", (state, ended, top))
    if child is not None:
        connection.execute("UPDATE jobs SET started = ? WHERE id = ? AND started = 0", (child.started, top))
        if child.warnings:
            _add_warnings(connection, top, child.warnings)
        if child.failure:
            connection.execute("UPDATE jobs SET failure = COALESCE(failure, ?) WHERE id = ?",
                               (_text(child.failure), top))


def _add_warnings(connection: sqlite3.Connection, top: str, warnings: Iterable[str]) -> None:
    (text,) = connection.execute("SELECT warnings FROM jobs WHERE id = ?", (top,)).fetchone()
    all_known = tuple(dict.fromkeys((*json.loads(text), *warnings)))[:MOST_WARNINGS]
    connection.execute("UPDATE jobs SET warnings = ? WHERE id = ?", (_text(all_known), top))


def summary(counts: Mapping[str, int]) -> str:
    """Return the state of a job whose children are in these states."""
    if counts.get(RUNNING):
        return RUNNING
    if counts.get(QUEUED):
        return RUNNING if set(counts) - {QUEUED} else QUEUED
    return next((state for state in (FAILED, INTERRUPTED, CANCELLED) if counts.get(state)), FINISHED)


def _job(row: sqlite3.Row, images: Iterable[SavedImage]) -> Job:
    return Job(
        id=row["id"], owner=row["owner"], state=row["state"], blocking=bool(row["blocking"]),
        request=_request(row["request"]),
        position=row["position"], created=row["created"], started=row["started"], ended=row["ended"],
        images=tuple(images),
        failure=codec.decode(Failure, json.loads(row["failure"])) if row["failure"] else None,
        warnings=tuple(json.loads(row["warnings"])), origin=row["origin"],
        parent="" if row["top"] == row["id"] else row["top"], tags=tuple(json.loads(row["tags"])),
        result=json.loads(row["result"]),
    )


@functools.lru_cache(maxsize=1024)
def _request(text: str) -> Request | Task:
    """Decode a request; lists show the same ones again and again."""
    values = json.loads(text)
    kind: type[Request | Task] = Task if "task" in values else Request
    return codec.decode(kind, values, ignore_unknown=True)


def _conditions(owner: str | None, states: Iterable[str] | None) -> tuple[str, tuple[str, ...]]:
    chosen = None if states is None else tuple(states)
    sql = "" if owner is None else " AND owner = ?"
    if chosen is not None:
        sql += f" AND state IN ({_marks(chosen)})"
    return sql, (*(() if owner is None else (owner,)), *(chosen or ()))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _text(value: object) -> str:
    return json.dumps(codec.encode(value), separators=(",", ":"))
