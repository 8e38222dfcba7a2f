"""The queue with a fake engine: every state, every command, many threads, a full disk."""

import dataclasses
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from modules.app.jobs import STOPPED, JobStore
from modules.app.messages import Advanced, Begun, Failed, Finished, Look, Ready, Run
from modules.core.errors import DiskFull, EngineDied, InvalidRequest, NotFound
from modules.core.job import CANCELLED, FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING
from modules.core.request import Request
from modules.core.result import Failure, Progress
from modules.host.discover import Found
from modules.host.registry import Host
from tests.app.copies_plugin import Copies
from tests.fixtures.fake_engine import FakeEngine, make_app

SMALL = Request(prompt="a cat", width=64, height=64, steps=2, seed=1, subseed=1)
WAIT = 10.0


def eventually(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def engine(tmp_path):
    failure = Failure("X", "It failed.", "Why.", 507)
    return FakeEngine(tmp_path / "outputs" / "txt2img-images", failure={"fail": failure})


@pytest.fixture
def app(tmp_path, engine):
    app = make_app(tmp_path, engine, host=Host((Found("copies", tmp_path, Copies(None)),)))
    app.start()
    yield app
    app.close()


@pytest.fixture
def held(app, engine):
    """A job that is in the middle of its first step."""
    engine.hold.clear()
    job = app.submit(dataclasses.replace(SMALL, batch_count=3))
    eventually(lambda: app.job(job.id).state == RUNNING)
    return job


def three(app, copies=3, **fields):
    return app.submit(dataclasses.replace(SMALL, plugins={"copies": {"copies": copies}}, **fields))


def kinds(subscription, until="ended"):
    seen = []
    while (event := subscription.get(WAIT)) is not None:
        seen.append(event.kind)
        if event.kind == until:
            return seen
    raise AssertionError(seen)


def test_a_job_is_a_row_first_and_has_its_pictures_in_the_end(app):
    request = dataclasses.replace(SMALL, batch_count=2)
    job = app.submit(request, owner="me", origin="api", job_id="task(1)", warnings=("w",))
    assert (job.id, job.state, job.owner, job.origin, job.warnings) == ("task(1)", QUEUED, "me", "api", ("w",))
    done = app.wait("task(1)", WAIT)
    assert done.state == FINISHED and [image.seed for image in done.images] == [1, 2]
    assert done.created <= done.started <= done.ended and done.progress is None
    assert app.jobs(owner="me") == [done] and app.jobs(owner="you") == [] and app.running() is None
    assert app.gallery.search("cat")[0].job == "task(1)"


def test_an_id_is_taken_once(app):
    app.submit(SMALL, job_id="a")
    with pytest.raises(InvalidRequest, match="already a job"):
        app.submit(SMALL, job_id="a")


def test_events_tell_the_whole_story(app, engine, held):
    with app.subscribe(held.id) as subscription:
        assert subscription.get(0).kind == "started"
        engine.hold.set()
        seen = kinds(subscription)
    assert seen[-1] == "ended" and {"progress", "preview", "image"} <= set(seen)


def test_a_newcomer_hears_the_present_state_first(app, held):
    waiting = app.submit(SMALL)
    with app.subscribe(waiting.id) as subscription:
        assert subscription.get(0).kind == "queued"
    app.cancel(waiting.id)
    with app.subscribe(waiting.id) as subscription:
        event = subscription.get(0)
        assert (event.kind, event.job.state) == ("ended", CANCELLED)
    with pytest.raises(NotFound):
        app.subscribe("nobody")


def test_progress_and_previews_are_sent_only_while_somebody_looks(app, engine):
    app.wait(app.submit(SMALL).id, 0.0)
    eventually(lambda: not app.jobs(states=(RUNNING, QUEUED)))
    runs = [command for command in engine.commands if isinstance(command, Run)]
    assert not runs[0].watching
    engine.hold.clear()
    job = app.submit(SMALL)
    eventually(lambda: app.job(job.id).state == RUNNING)
    assert app.preview(job.id) is None
    engine.hold.set()
    app.wait(job.id, WAIT)
    assert Look(True) in engine.commands


def test_looking_ends_with_the_subscription(app, engine, held):
    app.queue._looked = -1000.0
    with app.subscribe(held.id):
        assert engine.commands[-1] == Look(True)
    report = app.queue._report
    report(Advanced(held.id, Progress(fraction=0.5)))
    assert engine.commands[-1] == Look(False)
    assert app.job(held.id).progress.fraction == 0.5 and app.running().progress.fraction == 0.5


def test_previews_can_be_asked_for(app, engine, held):
    with app.subscribe(held.id) as subscription:
        engine.hold.set()
        engine.seconds_per_step = 0.05
        while subscription.get(WAIT).kind != "preview":
            pass
        number, jpeg = app.preview(held.id)
        assert number >= 1 and jpeg[:2] == b"\xff\xd8" and app.preview("other") is None
        assert app.job(held.id).progress.preview >= 1


def test_a_failure_is_told_and_the_next_job_runs(app):
    failed, fine = app.submit(dataclasses.replace(SMALL, prompt="fail")), app.submit(SMALL)
    assert app.wait(failed.id, WAIT).failure == Failure("X", "It failed.", "Why.", 507)
    assert app.job(failed.id).state == FAILED and app.wait(fine.id, WAIT).state == FINISHED


def test_cancelling_works_in_every_state(app, engine, held):
    waiting = app.submit(SMALL)
    assert app.cancel(waiting.id).state == CANCELLED
    assert app.cancel(held.id).state == RUNNING
    engine.hold.set()
    assert app.wait(held.id, WAIT).state == INTERRUPTED
    assert app.cancel(held.id).state == INTERRUPTED and app.cancel(waiting.id).state == CANCELLED
    with pytest.raises(NotFound):
        app.cancel("nobody")


def test_interrupt_skip_and_stop_reach_what_runs(app, engine, held):
    app.skip()
    engine.hold.set()
    assert [image.index for image in app.wait(held.id, WAIT).images] == [1, 2]
    engine.hold.clear()
    job = app.submit(dataclasses.replace(SMALL, batch_count=3))
    eventually(lambda: app.job(job.id).state == RUNNING)
    app.stop_after_current()
    engine.hold.set()
    stopped = app.wait(job.id, WAIT)
    assert (stopped.state, len(stopped.images)) == (INTERRUPTED, 1)
    for command in (app.interrupt, app.skip, app.stop_after_current):
        command()


def test_the_queue_can_be_reordered(app, engine, held):
    a, b, c = (app.submit(SMALL) for _ in range(3))
    app.move(c.id, a.id)
    app.move(a.id)
    assert [job.id for job in app.jobs(states=(QUEUED,))] == [c.id, b.id, a.id]
    with pytest.raises(InvalidRequest):
        app.move("nobody", a.id)
    engine.hold.set()
    eventually(lambda: not app.jobs(states=(QUEUED, RUNNING)))
    runs = [command.job_id for command in engine.commands if isinstance(command, Run)]
    assert runs == [held.id, c.id, b.id, a.id]


def test_pausing_lets_what_runs_go_on_and_begins_nothing(app, engine, held):
    app.pause()
    waiting = app.submit(SMALL)
    engine.hold.set()
    assert app.wait(held.id, WAIT).state == FINISHED
    assert app.paused and app.wait(waiting.id, 0.05).state == QUEUED
    app.resume()
    assert app.wait(waiting.id, WAIT).state == FINISHED and not app.paused


def test_history_can_be_forgotten_and_is_pruned(app):
    job = app.submit(SMALL)
    path = app.wait(job.id, WAIT).images[0].path
    app.forget(job.id)
    with pytest.raises(NotFound):
        app.job(job.id)
    assert Path(path).read_bytes()[:4] == b"\x89PNG"
    app.settings.update({"queue_keep_finished": 2})
    ids = [app.submit(SMALL).id for _ in range(5)]
    app.wait(ids[-1], WAIT)
    eventually(lambda: len(app.jobs()) == 2)
    assert [job.id for job in app.jobs()] == [ids[4], ids[3]]


def test_what_runs_cannot_be_forgotten(app, held):
    with pytest.raises(InvalidRequest, match="ended job"):
        app.forget(held.id)


def test_an_expanded_job_is_one_job_to_its_user(app, engine):
    engine.hold.clear()
    job = three(app, batch_count=2)
    eventually(lambda: app.job(job.id).state == RUNNING)
    assert app.running().id == job.id and [one.id for one in app.jobs()] == [job.id]
    with app.subscribe(job.id) as subscription:
        engine.hold.set()
        seen = kinds(subscription)
    done = app.job(job.id)
    assert done.state == FINISHED and len(done.images) == 6 and seen.count("ended") == 1
    assert [child.state for child in app.queue.store.children(job.id)] == [FINISHED] * 3


def test_progress_of_an_expanded_job_is_that_of_all_its_parts(app, engine):
    engine.hold.clear()
    job = three(app, batch_count=2)
    eventually(lambda: app.job(job.id).state == RUNNING)
    first = app.queue.store.children(job.id)[0]
    app.queue._report(Advanced(first.id, Progress(picture=1, pictures=2, fraction=0.5)))
    progress = app.job(job.id).progress
    assert (progress.picture, progress.pictures, progress.fraction) == (1, 6, pytest.approx(0.5 / 3))
    engine.hold.set()


def test_interrupting_an_expanded_job_ends_all_of_it(app, engine):
    engine.hold.clear()
    job, after = three(app), app.submit(SMALL)
    eventually(lambda: app.job(job.id).state == RUNNING)
    app.interrupt()
    engine.hold.set()
    assert app.wait(job.id, WAIT).state == INTERRUPTED and app.wait(after.id, WAIT).state == FINISHED
    assert [child.state for child in app.queue.store.children(job.id)] == [INTERRUPTED, CANCELLED, CANCELLED]


def test_a_failing_part_fails_the_whole_but_not_its_other_pictures(app):
    job = three(app, prompt="fail")
    done = app.wait(job.id, WAIT)
    assert done.state == FAILED and done.failure.status == 507


def test_sixteen_threads_lose_and_double_nothing(app, engine):
    ids = []

    def submit():
        for _ in range(4):
            ids.append(app.submit(SMALL).id)

    threads = [threading.Thread(target=submit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: not app.jobs(states=(QUEUED, RUNNING)))
    runs = [command.job_id for command in engine.commands if isinstance(command, Run)]
    assert len(set(ids)) == 64 and sorted(runs) == sorted(ids)
    assert {job.state for job in app.jobs(limit=100)} == {FINISHED}


def test_of_many_threads_with_one_id_one_wins(app):
    outcomes = []

    def submit():
        try:
            outcomes.append(app.submit(SMALL, job_id="same").id)
        except InvalidRequest:
            outcomes.append("refused")

    threads = [threading.Thread(target=submit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 15 + ["same"]


def test_a_thousand_queued_jobs_are_kept_in_order(app, held):
    ids = [app.submit(SMALL).id for _ in range(1000)]
    assert [job.id for job in app.jobs(states=(QUEUED,), limit=2000)] == ids
    app.move(ids[-1], ids[0])
    assert app.queue.store.next_queued().id == ids[-1]


def test_submitting_while_it_closes_is_refused_in_words_and_wakes_who_waits(app, held):
    waiting = app.submit(SMALL)
    errors = []

    def wait():
        try:
            app.wait(waiting.id)
        except EngineDied as error:
            errors.append(error)

    def submit():
        try:
            while True:
                app.submit(SMALL)
        except EngineDied as error:
            errors.append(error)

    threads = [threading.Thread(target=wait), *(threading.Thread(target=submit) for _ in range(3))]
    for thread in threads:
        thread.start()
    app.close()
    for thread in threads:
        thread.join(WAIT)
    assert len(errors) == 4 and all("shutting down" in error.message for error in errors)
    for call in (app.jobs, app.pause, app.interrupt):
        try:
            call()
        except EngineDied:
            continue


def test_a_closed_and_reopened_program_goes_on(tmp_path, app, engine, held):
    waiting, blocking = app.submit(SMALL), app.submit(SMALL, blocking=True)
    app.pause()
    app.close()
    again = make_app(tmp_path, FakeEngine(engine.folder))
    again.start()
    assert again.paused and again.job(blocking.id).state == CANCELLED
    assert [job.id for job in again.jobs(states=(QUEUED,))] == [held.id, waiting.id]
    again.resume()
    assert again.wait(waiting.id, WAIT).state == FINISHED and len(again.job(held.id).images) == 3
    again.close()


def test_a_restarted_job_makes_only_what_is_missing(tmp_path, engine):
    app = make_app(tmp_path, engine)
    engine.hold.clear()
    app.start()
    job = app.submit(dataclasses.replace(SMALL, batch_count=3))
    with app.subscribe(job.id) as subscription:
        engine.hold.set()
        engine.seconds_per_step = 0.02
        kinds(subscription, until="image")
        engine.hold.clear()
    first = app.job(job.id).images
    app.close()
    after = FakeEngine(engine.folder)
    again = make_app(tmp_path, after)
    again.start()
    done = again.wait(job.id, WAIT)
    assert sorted(image.index for image in done.images) == [0, 1, 2] and done.images[:len(first)] == first
    assert after.commands[0].saved == first
    again.close()


def test_a_disk_that_is_full_refuses_a_job_and_keeps_the_others(app, held, engine):
    waiting = app.submit(SMALL)
    pages = app.queue.store._database.read("PRAGMA page_count")[0][0]
    app.queue.store._database.read(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DiskFull):
        for _ in range(100):
            app.submit(dataclasses.replace(SMALL, prompt="x" * 10_000))
    app.queue.store._database.read("PRAGMA max_page_count=1000000")
    engine.hold.set()
    assert app.wait(waiting.id, WAIT).state == FINISHED and app.job(held.id).state == FINISHED


def test_an_end_that_cannot_be_written_is_remembered_and_written_later(app, held, engine, monkeypatch):
    real = JobStore.save

    def full(store, job):
        raise DiskFull("The disk is full.")

    monkeypatch.setattr(JobStore, "save", full)
    engine.hold.set()
    done = app.wait(held.id, WAIT)
    assert done.state == FINISHED and len(done.images) == 3
    monkeypatch.setattr(JobStore, "save", real)
    app.wait(app.submit(SMALL).id, WAIT)
    with sqlite3.connect(app.queue.store._database.path) as connection:
        assert connection.execute("SELECT state FROM jobs WHERE id = ?", (held.id,)).fetchone() == (FINISHED,)


class Silent(FakeEngine):
    """Does nothing by itself."""

    def start(self, report):
        self.report = report

    def send(self, command):
        self.commands.append(command)


@pytest.fixture
def silent(tmp_path):
    engine = Silent(tmp_path)
    app = make_app(tmp_path, engine)
    app.start()
    yield app, engine
    app.close()


def test_the_death_of_the_engine_fails_what_ran_and_the_rest_waits_for_the_next(silent):
    app, engine = silent
    first, second = app.submit(SMALL), app.submit(SMALL)
    engine.report(Ready())
    assert [command.job_id for command in engine.commands] == [first.id]
    engine.report(Begun(first.id))
    engine.report(Failed("", Failure("EngineDied", "It died.", "", 503), died=True))
    assert app.job(first.id).failure.message == "It died." and app.job(second.id).state == QUEUED
    assert len(engine.commands) == 1
    engine.report(Ready())
    assert [command.job_id for command in engine.commands] == [first.id, second.id]


def test_a_job_handed_to_an_engine_already_dead_is_not_lost(silent):
    app, engine = silent
    first, second = app.submit(SMALL), app.submit(SMALL)
    engine.report(Ready())
    engine.report(Failed(first.id, Failure("EngineDied", "It died.", "", 503), died=True))
    assert [job.id for job in app.jobs(states=(QUEUED,))] == [first.id, second.id] and app.running() is None
    assert app.job(first.id).started == 0.0
    engine.report(Ready())
    assert [command.job_id for command in engine.commands] == [first.id, first.id]


def test_callers_who_wait_are_told_when_the_engine_does_not_start(silent):
    app, engine = silent
    patient, waiting = app.submit(SMALL), app.submit(SMALL, blocking=True)
    engine.report(Failed("", Failure("EngineDied", "No torch.", "", 503), died=True))
    failed = app.wait(waiting.id, 1.0)
    assert (failed.state, failed.failure.message) == (FAILED, "No torch.")
    assert app.job(patient.id).state == QUEUED
    engine.report(Ready())
    assert app.job(patient.id).state == RUNNING


def test_reports_about_other_jobs_change_nothing(silent):
    app, engine = silent
    job = app.submit(SMALL)
    engine.report(Ready())
    engine.report(Finished("other"))
    assert app.job(job.id).state == RUNNING
    engine.report(Finished(job.id, warnings=("careful",)))
    assert app.job(job.id).warnings == ("careful",)


def test_what_the_gallery_cannot_take_fails_no_job(app, monkeypatch):
    def full(*_):
        raise DiskFull("full")

    monkeypatch.setattr(app.gallery, "add", full)
    assert app.wait(app.submit(SMALL).id, WAIT).state == FINISHED


def test_memory_and_state_of_the_engine(app, monkeypatch):
    assert app.memory()["ram"]["total"] == 3 and app.engine_status().state in ("ready", "busy")
    monkeypatch.setattr(app.engine, "send", lambda command: None)
    assert app.queue.memory(timeout=0.01) == {}


def test_a_job_that_heard_of_its_interrupt_is_not_remembered(app, engine, held):
    app.interrupt()
    assert app.queue.store.meta(STOPPED) == held.id
    engine.hold.set()
    eventually(lambda: app.job(held.id).state == INTERRUPTED)
    assert app.queue.store.meta(STOPPED) == ""


def test_progress_of_a_part_reads_no_row(app, engine, monkeypatch):
    engine.hold.clear()
    job = three(app)
    eventually(lambda: app.job(job.id).state == RUNNING)
    reads = []
    get = app.queue.store.get
    monkeypatch.setattr(app.queue.store, "get", lambda job_id: reads.append(job_id) or get(job_id))
    running = app.queue._running
    for step in range(5):
        app.queue._report(Advanced(running.job.id, Progress(step=step, steps=5, fraction=step / 5)))
    assert reads == []
    engine.hold.set()
    assert app.wait(job.id, WAIT).state == FINISHED
