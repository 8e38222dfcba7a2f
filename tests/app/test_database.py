import sqlite3
import threading

import pytest

from modules.app.database import Database, hold
from modules.core.errors import DarkroomError, DiskFull

FIRST = "CREATE TABLE a (x INTEGER);\nCREATE TABLE b (x INTEGER)"


def test_an_older_file_is_brought_up_to_date_and_keeps_its_rows(tmp_path):
    path = tmp_path / "deep" / "a.sqlite3"
    old = Database(path, (FIRST,))
    with old.write() as connection:
        connection.execute("INSERT INTO a VALUES (1)")
    old.close()
    new = Database(path, (FIRST, "ALTER TABLE a ADD COLUMN y TEXT DEFAULT 'new'"))
    assert [tuple(row) for row in new.read("SELECT x, y FROM a")] == [(1, "new")]
    new.close()


def test_a_file_of_a_newer_program_is_refused(tmp_path):
    Database(tmp_path / "a", (FIRST, "CREATE TABLE c (x)")).close()
    with pytest.raises(DarkroomError, match="newer version"):
        Database(tmp_path / "a", (FIRST,))


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(DarkroomError):
        Database(tmp_path / "a", ("CREATE TABLE a (x);\nCREATE NONSENSE",))
    with sqlite3.connect(tmp_path / "a") as connection:
        assert connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)


def test_a_transaction_is_all_or_nothing(tmp_path):
    database = Database(tmp_path / "a", (FIRST,))
    with pytest.raises(ValueError, match="in the middle"), database.write() as connection:
        connection.execute("INSERT INTO a VALUES (1)")
        raise ValueError("in the middle")
    assert not database.read("SELECT * FROM a")
    database.close()


def test_a_full_disk_says_so_and_the_file_goes_on_to_work(tmp_path):
    database = Database(tmp_path / "a", (FIRST,))
    pages = database.read("PRAGMA page_count")[0][0]
    database.read(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DiskFull, match="disk is full"), database.write() as connection:
        connection.execute("INSERT INTO a VALUES (?)", ("x" * 100_000,))
    database.read("PRAGMA max_page_count=100000")
    with database.write() as connection:
        connection.execute("INSERT INTO a VALUES (1)")
    assert len(database.read("SELECT * FROM a")) == 1
    database.close()


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"nonsense" * 1000)
    with pytest.raises(DarkroomError, match="could not be used"):
        Database(tmp_path / "a", (FIRST,))


def test_threads_write_one_after_the_other(tmp_path):
    database = Database(tmp_path / "a", (FIRST,))

    def count():
        for _ in range(50):
            with database.write() as connection:
                (highest,) = connection.execute("SELECT COALESCE(MAX(x), 0) FROM a").fetchone()
                connection.execute("INSERT INTO a VALUES (?)", (highest + 1,))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row[0] for row in database.read("SELECT x FROM a ORDER BY x")] == list(range(1, 401))
    database.close()


def test_one_process_at_a_time_holds_a_file(tmp_path, monkeypatch):
    real = sqlite3.connect
    monkeypatch.setattr("modules.app.database.sqlite3.connect", lambda *a, **k: real(*a, **k | {"timeout": 0.01}))
    first = hold(tmp_path / "a.lock")
    with pytest.raises(DarkroomError, match="already runs"):
        hold(tmp_path / "a.lock")
    first.close()
    hold(tmp_path / "a.lock").close()
