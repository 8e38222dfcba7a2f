"""Forms live on the server: what every tab of every owner shows, so that a reload loses nothing."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.app.database import Database
from modules.core.errors import InvalidRequest
from modules.core.request import INPUT_ID

MAX_FORM_BYTES = 1024 * 1024
MAX_FORMS = 1000

MIGRATIONS = ("""
CREATE TABLE forms (
    owner TEXT NOT NULL, tab TEXT NOT NULL, fields TEXT NOT NULL DEFAULT '{}', job TEXT NOT NULL DEFAULT '',
    changed REAL NOT NULL, PRIMARY KEY (owner, tab)) WITHOUT ROWID
""",)


class FormStore:
    """Values of forms by owner and tab, and the last job of each. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def load(self, owner: str, tab: str) -> dict[str, Any]:
        """Return the stored values by name, empty where there are none."""
        row = self._row(owner, tab)
        return dict(json.loads(row[0])) if row else {}

    def save(self, owner: str, tab: str, values: Mapping[str, Any]) -> None:
        """Store ``values`` (JSON types) in place of the old; raises ``InvalidRequest`` beyond 1 MB."""
        with self._database.write() as connection:
            _store(connection, owner, tab, values)

    def merge(self, owner: str, tab: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change the given values only, and return all of them; raises as ``save``."""
        with self._database.write() as connection:
            merged = {**self.load(owner, tab), **values}
            _store(connection, owner, tab, merged)
        return merged

    def last_job(self, owner: str, tab: str) -> str:
        """Return the id of the tab's last job, empty where there was none."""
        row = self._row(owner, tab)
        return str(row[1]) if row else ""

    def remember_job(self, owner: str, tab: str, job_id: str) -> None:
        """Note the tab's last job."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO forms (owner, tab, job, changed) VALUES (?, ?, ?, ?) ON CONFLICT (owner, tab) "
                "DO UPDATE SET job = excluded.job, changed = excluded.changed", (owner, tab, job_id, time.time()))

    def mentioned(self) -> set[str]:
        """Return what may be the id of a stored picture in any form."""
        rows = self._database.read("SELECT fields FROM forms")
        return {key for row in rows for key in INPUT_ID.findall(row["fields"])}

    def _row(self, owner: str, tab: str) -> Any:
        rows = self._database.read("SELECT fields, job FROM forms WHERE owner = ? AND tab = ?", (owner, tab))
        return rows[0] if rows else None


def _store(connection: sqlite3.Connection, owner: str, tab: str, values: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT INTO forms (owner, tab, fields, changed) VALUES (?, ?, ?, ?) ON CONFLICT (owner, tab) "
        "DO UPDATE SET fields = excluded.fields, changed = excluded.changed",
        (owner, tab, _text(values), time.time()))
    connection.execute(
        "DELETE FROM forms WHERE (owner, tab) IN "
        "(SELECT owner, tab FROM forms ORDER BY changed DESC LIMIT -1 OFFSET ?)", (MAX_FORMS,))


def _text(values: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(values), separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"The form cannot be stored: {error}.") from None
    if len(text) > MAX_FORM_BYTES:
        raise InvalidRequest("The form is larger than 1 MB.", "Shorten the prompt.")
    return text
