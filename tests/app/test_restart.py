"""The whole program killed with kill -9 while jobs run and wait, and started again on what it left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from modules.core.job import CANCELLED, FINISHED
from modules.library.images import read_image_info
from tests.app.test_engine_client import app_with

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0

PROGRAM = """
import dataclasses, json, pathlib, sys, time
from tests.app.test_engine_client import SMALL, app_with

if __name__ == "__main__":
    app = app_with(pathlib.Path(sys.argv[1]), "open_stub")
    app.start()
    first = app.submit(dataclasses.replace(SMALL, prompt="slow", steps=10, batch_count=5))
    waiting = app.submit(SMALL)
    blocking = app.submit(SMALL, blocking=True)
    while len(app.job(first.id).images) < 2:
        time.sleep(0.005)
    print(json.dumps([first.id, waiting.id, blocking.id, app.engine_status().pid]), flush=True)
    time.sleep(60)
"""


def test_nothing_queued_or_finished_is_lost(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    data = tmp_path / "data"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(program), str(data)], stdout=subprocess.PIPE, env=environment,
                          cwd=ROOT) as process:
        first, waiting, blocking, engine = json.loads(process.stdout.readline())
        process.kill()
        assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + WAIT
    while Path(f"/proc/{engine}").exists() and "Z" not in Path(f"/proc/{engine}/stat").read_text():
        assert time.monotonic() < deadline, "the engine outlives its parent"
        time.sleep(0.01)

    app = app_with(data, "open_stub")
    left = app.queue.store.get(first).images
    assert len(left) >= 2
    app.start()
    done = app.wait(first, WAIT)
    pictures = [image for image in done.images if image.kind == "picture"]
    assert done.state == FINISHED and done.images[:len(left)] == left
    assert sorted(image.index for image in pictures) == [0, 1, 2, 3, 4]
    assert all(read_image_info(image.path).infotext == image.infotext for image in done.images)
    assert app.wait(waiting, WAIT).state == FINISHED and app.job(blocking).state == CANCELLED
    app.close()
