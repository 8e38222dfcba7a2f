import dataclasses
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.app import jobs
from modules.app.database import Database
from modules.app.jobs import STOPPED, JobStore, summary
from modules.core.job import CANCELLED, ENDED, FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING, Job
from modules.core.request import Request
from modules.core.result import Failure, Part, SavedImage
from modules.core.settings import Settings
from modules.core.task import Task


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


def job(job_id, **values):
    return Job(job_id, "me", QUEUED, values.pop("request", Request()), **values)


def image(number):
    return SavedImage(f"/o/{number}.png", "picture", 64, 64, number, "text", number)


def run(store, one, *images, state=RUNNING, at=5.0):
    one = dataclasses.replace(one, state=state, started=at, images=images, ended=at + 1 if state in ENDED else 0.0)
    store.save(one)
    return one


def test_a_row_gives_back_the_whole_job(store):
    settings = Settings(rho=1.5, hide_samplers=("a",))
    request = Request(prompt="猫\n", seed=2**64 - 1, plugins={"p": {"n": 1}}, settings=settings)
    given_job = job("a", request=request, blocking=True, created=3.5, warnings=("w",), origin="api", tags=("t",))
    added = store.add(given_job)
    assert added == dataclasses.replace(given_job, position=1.0)
    ended = dataclasses.replace(added, state=FAILED, started=4.0, ended=5.0, images=(image(1), image(2)),
                                failure=Failure("E", "m", "h", 507), warnings=("w", "v"))
    store.save(ended)
    assert store.get("a") == ended and store.get("b") is None


def test_a_row_gives_back_a_task_and_its_result(store):
    task = Task("upscale", {"scale": 2.5, "names": ["ü"]}, "two pictures", "by 2.5", 2, Settings(rho=1.5), False)
    added = store.add(job("a", request=task))
    ended = dataclasses.replace(added, state=FINISHED, started=4.0, ended=5.0, result={"kept": [1, 2]})
    store.save(ended)
    assert store.get("a") == ended and store.share("a").pictures == 2


def test_rows_of_before_there_were_tasks_are_read(tmp_path):
    path = tmp_path / "old.sqlite3"
    old = Database(path, jobs.MIGRATIONS[:1])
    with old.write() as connection:
        connection.execute(
            "INSERT INTO jobs (id, top, part, parts, owner, origin, state, blocking, position, created, pictures, "
            "tags, warnings, request) VALUES ('a', 'a', 0, 0, '', 'page', 'finished', 0, 1, 2, 1, '[]', '[]', "
            "'{\"prompt\": \"old\"}')")
    old.close()
    store = JobStore(path)
    found = store.get("a")
    store.close()
    assert found.request == Request(prompt="old") and found.result == {}


def test_jobs_run_in_order_and_are_listed_running_queued_ended(store):
    jobs = [store.add(job(name)) for name in "abcde"]
    run(store, jobs[0], state=FINISHED, at=1.0)
    run(store, jobs[1], state=FINISHED, at=2.0)
    run(store, jobs[2])
    assert [one.id for one in store.listed()] == ["c", "d", "e", "b", "a"]
    assert [one.id for one in store.listed(states=(QUEUED,), limit=1, offset=1)] == ["e"]
    assert store.next_queued().id == "d"
    assert store.count() == 5 and store.count(states=ENDED) == 2 and store.count(owner="you") == 0
    assert store.listed(owner="you") == [] and store.listed(states=()) == []


def test_an_image_is_kept_once(store):
    one = store.add(job("a"))
    run(store, one, image(1))
    run(store, one, image(1), image(2))
    assert store.get("a").images == (image(1), image(2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 5))), max_size=12))
def test_moving_is_what_moving_in_a_list_is(tmp_path_factory, moves):
    store = JobStore(tmp_path_factory.mktemp("jobs") / "a.sqlite3")
    order = [str(number) for number in range(6)]
    for name in order:
        store.add(job(name))
    for which, before in moves:
        assert store.move(str(which), None if before is None else str(before))
        if which != before:
            order.remove(str(which))
            order.insert(len(order) if before is None else order.index(str(before)), str(which))
    assert [one.id for one in store.listed()] == order
    store.close()


def test_only_what_waits_can_be_moved(store):
    one = store.add(job("a"))
    store.add(job("b"))
    run(store, one, state=FINISHED)
    assert not store.move("a", "b") and not store.move("b", "a") and not store.move("c", None)


def test_what_was_added_last_comes_last_after_moves(store):
    for name in "ab":
        store.add(job(name))
    store.move("a", None)
    store.add(job("c"))
    assert [one.id for one in store.listed()] == ["b", "a", "c"]


def family(store, parts=3):
    parent = job("p", request=Request(batch_size=2), blocking=False)
    children = tuple(job(f"p.{n}", request=Request(batch_size=2, seed=n)) for n in range(1, parts + 1))
    store.add(parent, children)
    return store.children("p")


def test_only_children_of_an_expanded_job_run_and_it_sums_them_up(store):
    first, second, third = family(store)
    store.add(job("q"))
    assert first.parent == "p" and [one.id for one in store.listed()] == ["p", "q"]
    assert store.next_queued() == first
    run(store, first)
    assert store.get("p").state == RUNNING and store.get("p").started == 5.0
    run(store, first, image(1), state=FINISHED)
    assert store.get("p").state == RUNNING and store.next_queued() == second
    failed = dataclasses.replace(second, state=FAILED, ended=8.0, failure=Failure("E", "m"))
    store.save(failed)
    share = store.share("p")
    assert (share.parts, share.ended, share.pictures_ended, share.pictures) == (3, 2, 4, 6)
    run(store, third, image(3), state=FINISHED, at=9.0)
    parent = store.get("p")
    assert (parent.state, parent.ended, parent.failure) == (FAILED, 10.0, Failure("E", "m"))
    assert parent.images == (image(1), image(3))
    assert store.next_queued().id == "q"


def test_cancelling_takes_the_waiting_children_out(store):
    first, *_ = family(store)
    run(store, first, image(1))
    assert store.cancel_queued("p", 7.0) and not store.cancel_queued("p", 7.0)
    assert store.get("p").state == RUNNING and store.next_queued() is None
    run(store, first, image(1), state=INTERRUPTED)
    assert store.get("p").state == INTERRUPTED


def plot(store):
    """A job of two parts and a third that gathers what they have made."""
    last = Task("plot", {}, gathers=True)
    children = (*(job(f"p.{n}", request=Request(seed=n)) for n in (1, 2)), job("p.3", request=last))
    store.add(job("p"), children)
    return store.children("p")


def test_what_parts_have_come_to_is_told_in_order(store):
    first, second, _ = plot(store)
    run(store, second, image(2), image(3), state=FINISHED)
    run(store, first, state=FAILED)
    assert store.results("p") == (Part(FAILED), Part(FINISHED, (image(2), image(3))))


def test_what_is_made_is_still_gathered_where_a_job_is_stopped_in_the_middle(store):
    first, second, last = plot(store)
    run(store, first, image(1), state=FINISHED)
    run(store, second)
    assert not store.cancel_queued("p", 7.0)
    run(store, second, state=INTERRUPTED)
    assert store.next_queued() == last
    # Nothing runs any more, so this means the last part, too.
    assert store.cancel_queued("p", 8.0) and store.get("p").state == INTERRUPTED


def test_nothing_is_gathered_where_nothing_was_made(store):
    first, *_ = plot(store)
    run(store, first)
    assert store.cancel_queued("p", 7.0) and store.next_queued() is None


def test_warnings_of_parts_are_the_jobs(store):
    first, second, _ = plot(store)
    for one, warnings in ((first, ("a", "b")), (second, ("b", "c"))):
        run(store, dataclasses.replace(one, warnings=warnings), state=FINISHED)
    assert store.get("p").warnings == ("a", "b", "c")


@pytest.mark.parametrize(("counts", "state"), [
    ({QUEUED: 2}, QUEUED), ({QUEUED: 1, FINISHED: 1}, RUNNING), ({RUNNING: 1, FAILED: 1}, RUNNING),
    ({FINISHED: 2}, FINISHED), ({FINISHED: 1, FAILED: 1}, FAILED), ({CANCELLED: 2}, CANCELLED),
    ({FINISHED: 1, INTERRUPTED: 1, CANCELLED: 1}, INTERRUPTED),
])
def test_states_of_children_sum_up(counts, state):
    assert summary(counts) == state


def test_a_restart_queues_what_ran_in_front_with_its_images_and_cancels_what_nobody_waits_for(store):
    for name in "xyz":
        store.add(job(name))
    store.add(job("w", blocking=True))
    run(store, store.get("z"), image(0))
    store.recover(99.0)
    assert [one.id for one in store.listed(states=(QUEUED,))] == ["z", "x", "y"]
    assert store.get("z").images == (image(0),)
    assert (store.get("w").state, store.get("w").ended) == (CANCELLED, 99.0)


def test_a_restart_goes_on_with_an_expanded_job(store):
    first, second, third = family(store)
    run(store, first, image(1), state=FINISHED)
    run(store, second, image(2))
    store.recover(99.0)
    assert store.next_queued().id == second.id and store.get("p").state in (QUEUED, RUNNING)
    assert store.children("p")[0].state == FINISHED


def test_history_is_pruned_to_the_latest(store):
    for number in range(10):
        run(store, store.add(job(str(number))), image(number), state=FINISHED, at=float(number))
    store.add(job("queued"))
    assert store.prune(3) == 7
    assert [one.id for one in store.listed()] == ["queued", "9", "8", "7"]
    assert store.get("0") is None


def test_deleting_forgets_an_ended_job_and_its_children_only(store):
    children = family(store)
    store.add(job("a"))
    assert not store.delete("p") and not store.delete("a") and not store.delete("p.1")
    for child in children:
        run(store, child, image(1), state=FINISHED)
    assert store.delete("p") and store.get("p.1") is None and store.get("a") is not None


def test_an_id_is_taken_once(store):
    store.add(job("a"))
    assert store.exists("a") and not store.exists("b")
    with pytest.raises(Exception, match="UNIQUE"):
        store.add(job("a"))


def test_ten_thousand_rows_are_listed_by_columns_without_decoding_requests(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite3")
    store.add(job("template"))
    store.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        row = connection.execute("SELECT * FROM jobs").fetchone()
        columns = [item[1] for item in connection.execute("PRAGMA table_info(jobs)")]
        first = dict(zip(columns, row, strict=True))
        rows = [first | {"id": str(n), "top": str(n), "position": n + 2.0, "request": "!"} for n in range(10_000)]
        connection.executemany(f"INSERT INTO jobs VALUES ({', '.join(f':{name}' for name in columns)})", rows)
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE state = 'queued' AND parts = 0 "
                                  "ORDER BY position, part LIMIT 1").fetchall()
    assert "jobs_order" in plan[0][3] and len(plan) == 1
    store = JobStore(tmp_path / "jobs.sqlite3")
    assert store.count(states=(QUEUED,)) == 10_001 and store.next_queued().id == "template"
    assert [one.id for one in store.listed(limit=1)] == ["template"]
    store.close()


def test_what_was_asked_to_stop_has_stopped_after_a_restart(store):
    run(store, store.add(job("z")), image(0))
    first, _, _ = family(store)
    run(store, first, image(1))
    store.set_meta(STOPPED, "z")
    store.recover(99.0)
    assert (store.get("z").state, store.get("z").ended, store.get("z").images) == (INTERRUPTED, 99.0, (image(0),))
    assert store.next_queued().id == first.id
    store.set_meta(STOPPED, "p")
    store.recover(100.0)
    assert {one.state for one in (store.get("p"), *store.children("p"))} == {INTERRUPTED}


def test_another_job_with_the_id_of_one_that_was_stopped_runs_again_after_a_restart(store):
    store.set_meta(STOPPED, "z")
    store.recover(1.0)
    run(store, store.add(job("z")), image(0))
    store.recover(2.0)
    assert store.get("z").state == QUEUED


def test_warnings_of_many_parts_are_bounded(store, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WARNINGS", 2)
    for number, part in enumerate(family(store)):
        store.save(dataclasses.replace(part, warnings=(f"warning {number}",)))
    assert store.get("p").warnings == ("warning 0", "warning 1")
