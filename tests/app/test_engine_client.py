"""A real process with a stub in the place of the engine: killed, interrupted, broken, restarted."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from modules.app.app import assemble
from modules.app.engine_client import EngineClient, Patience
from modules.app.messages import EngineStatus
from modules.app.settings import SettingsStore
from modules.app.workbench import WorkerConfig
from modules.core.errors import InvalidRequest
from modules.core.job import FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING, Job
from modules.core.request import Request
from modules.core.task import Task
from modules.host.registry import Host
from modules.launcher.flags import Flags
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.images import read_image_info
from modules.web.views import row_view
from tests.fixtures.fake_engine import write_stand_in_checkpoint

SMALL = Request(prompt="a cat", width=64, height=64, steps=3, seed=1, subseed=1)
WAIT = 60.0


def eventually(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def app_with(folder, engine, patience=None):
    places = folders(folder, {})
    write_stand_in_checkpoint(places.checkpoints[0])
    config = WorkerConfig(str(folder), engine=f"tests.app.stub_bench:{engine}", log=str(folder / "logs" / "engine.log"))
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    return assemble(library, SettingsStore(places.config), Host(()), EngineClient(config, patience), Flags())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def app(folder):
    """One child for the whole file where it survives; the tests run in order and each leaves it ready."""
    app = app_with(folder, "open_stub")
    app.start()
    yield app
    app.close()


def run(app, **fields):
    return app.wait(app.submit(dataclasses.replace(SMALL, **fields)).id, WAIT)


def started(app, **fields):
    job = app.submit(dataclasses.replace(SMALL, **fields))
    eventually(lambda: app.job(job.id).state == RUNNING)
    return job


def test_pictures_come_back_with_infotext_and_grid(app):
    job = run(app, batch_count=2, prompt="warn")
    assert job.state == FINISHED and job.warnings == ("a warning",)
    assert [image.kind for image in job.images] == ["picture", "picture", "grid"]
    assert read_image_info(job.images[0].path).infotext == job.images[0].infotext
    # `printf weights | sha256sum` begins with these digits.
    assert "Model hash: 9a129038d9, Model: stub" in job.images[0].infotext
    eventually(lambda: app.engine_status().state == "ready")
    assert app.engine_status() == EngineStatus("ready", device="stub", pid=app.engine_status().pid)


def test_a_task_is_a_job_like_any_other(app):
    task = Task("stub", {"colours": ["red", "blue"]}, "two colours", pictures=2)
    queued = app.queue.add(Job("task-1", "", QUEUED, task))
    job = app.wait(queued.id, WAIT)
    assert job.state == FINISHED and job.result == {"colours": 2} and job.request == task
    assert [(Path(image.path).parent.name, Path(image.path).name, image.kind) for image in job.images] == [
        ("stub-images", "00000-red.png", "picture"), ("stub-images", "00001-blue.png", "picture")]
    assert "Postprocess: yes" in read_image_info(job.images[0].path).infotext
    view = row_view(job)
    assert (view["prompt"], view["pictures"], view["result"]) == ("two colours", 2, {"colours": 2})


def test_a_kind_of_task_that_nobody_does_is_refused_before_it_is_queued(app):
    with pytest.raises(InvalidRequest, match="no jobs of the kind 'juggle'"):
        app.submit_task(Task("juggle", {}))
    with pytest.raises(InvalidRequest, match="pictures must be from 1"):
        app.submit_task(Task("juggle", {}, pictures=0))


def test_progress_previews_and_memory_while_it_runs(app):
    job = app.submit(dataclasses.replace(SMALL, prompt="slow", steps=60))
    kinds, first = [], None
    with app.subscribe(job.id) as subscription:
        while not kinds or kinds[-1] != "ended":
            event = subscription.get(WAIT)
            kinds.append(event.kind)
            if event.kind == "preview" and first is None:
                first = app.preview(job.id)
                assert app.memory()["ram"]["total"] == 30
    assert first is not None and first[1][:2] == b"\xff\xd8" and kinds.count("progress") >= 3


def test_interrupting_takes_effect_within_one_model_call(app):
    job = started(app, prompt="slow", steps=1000)
    app.interrupt()
    assert app.wait(job.id, WAIT).state == INTERRUPTED and app.job(job.id).images == ()
    assert app.job(job.id).ended - app.job(job.id).started < 15.0


def test_stopping_finishes_the_batch(app):
    job = started(app, prompt="slow", steps=20, batch_count=5)
    app.stop_after_current()
    stopped = app.wait(job.id, WAIT)
    pictures = [image for image in stopped.images if image.kind == "picture"]
    assert stopped.state == INTERRUPTED and 1 <= len(pictures) < 5


@pytest.mark.parametrize(("prompt", "error", "status"), [
    ("boom", "ValueError", 500), ("invalid", "InvalidModel", 422), ("hungry", "OutOfMemory", 507),
])
def test_errors_fail_their_job_alone(app, folder, prompt, error, status):
    pid = app.engine_status().pid
    failed = run(app, prompt=prompt)
    assert failed.state == FAILED and (failed.failure.error, failed.failure.status) == (error, status)
    assert run(app).state == FINISHED and app.engine_status().pid == pid
    if prompt == "boom":
        assert "boom" in (folder / "logs" / "engine.log").read_text()


def test_unloading_waits_until_nothing_runs(app, folder):
    job = started(app, prompt="slow", steps=20)
    app.unload()
    assert not (folder / "unloaded").exists()
    app.wait(job.id, WAIT)
    eventually((folder / "unloaded").exists)


def test_a_killed_engine_fails_one_job_keeps_its_pictures_and_comes_back(app):
    pid = app.engine_status().pid
    job, after = app.submit(dataclasses.replace(SMALL, prompt="kill-2", batch_count=4)), app.submit(SMALL)
    failed = app.wait(job.id, WAIT)
    assert (failed.state, failed.failure.error, failed.failure.status) == (FAILED, "EngineDied", 503)
    assert "SIGKILL" in failed.failure.message and [image.index for image in failed.images] == [0, 1]
    assert app.wait(after.id, WAIT).state == FINISHED and app.engine_status().pid not in (0, pid)


def test_an_engine_killed_while_idle_comes_back_without_failing_anything(app):
    eventually(lambda: app.engine_status().state == "ready")
    pid = app.engine_status().pid
    os.kill(pid, signal.SIGKILL)
    assert run(app).state == FINISHED and app.engine_status().pid != pid


def test_an_engine_that_cannot_start_says_why_and_is_tried_again_ever_later(tmp_path):
    app = app_with(tmp_path, "open_broken", Patience(first_retry=0.05))
    patient = app.submit(SMALL)
    waiting = app.submit(SMALL, blocking=True)
    app.start()
    failed = app.wait(waiting.id, WAIT)
    # A blocking caller who asks before the start is gone after it; one who asks now is told the reason.
    if failed.failure is None:
        failed = app.wait(app.submit(SMALL, blocking=True).id, WAIT)
    assert "libnothing.so.1" in failed.failure.message
    assert app.job(patient.id).state == QUEUED
    eventually(lambda: "libnothing" in app.engine_status().message)
    app.close()
    assert app.engine_status().state == "stopped"


def test_pauses_between_starts_grow_to_a_limit():
    patience = Patience(first_retry=1.0, last_retry=60.0)
    assert [patience.before_retry(failures) for failures in (0, 1, 2, 3, 20)] == [0.0, 1.0, 2.0, 4.0, 60.0]


def test_closing_ends_the_process_and_tells_the_workbench(tmp_path):
    app = app_with(tmp_path, "open_stub")
    app.start()
    eventually(lambda: app.engine_status().state == "ready")
    pid = app.engine_status().pid
    app.close()
    assert (tmp_path / "closed").exists() and not Path(f"/proc/{pid}/status").exists()
