"""The whole program killed with kill -9 while jobs run and wait, and started again on what it left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from modules.core.job import CANCELLED, FAILED, FINISHED
from modules.library.images import read_image_info
from tests.app.test_engine_client import app_with

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0

PLOT = """
import dataclasses, json, pathlib, sys, time
from modules.core.grid import Grid
from tests.app.test_engine_client import SMALL, app_with

if __name__ == "__main__":
    app = app_with(pathlib.Path(sys.argv[1]), "open_stub")
    app.start()
    grid = Grid("Steps", "4, 5, 6", "Prompt S/R", "slow, slow boom")
    job = app.submit(dataclasses.replace(SMALL, prompt="slow", grid=grid))
    while len(app.job(job.id).images) < 2:
        time.sleep(0.005)
    print(json.dumps([job.id, app.engine_status().pid]), flush=True)
    time.sleep(60)
"""
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


def killed(source, tmp_path):
    """Run ``source`` until it says something, kill it, wait until its engine has ended; return what it said."""
    program, data = tmp_path / "program.py", tmp_path / "data"
    program.write_text(source)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(program), str(data)], stdout=subprocess.PIPE, env=environment,
                          cwd=ROOT) as process:
        *said, engine = json.loads(process.stdout.readline())
        process.kill()
        assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + WAIT
    while Path(f"/proc/{engine}").exists() and "Z" not in Path(f"/proc/{engine}/stat").read_text():
        assert time.monotonic() < deadline, "the engine outlives its parent"
        time.sleep(0.01)
    return data, said


def test_a_plot_goes_on_where_it_was_and_is_drawn_of_all_its_cells(tmp_path):
    data, (job,) = killed(PLOT, tmp_path)
    app = app_with(data, "open_stub")
    left = app.queue.store.get(job).images
    app.start()
    done = app.wait(job, WAIT)
    # The second row fails: its prompts make the stub fail.
    assert done.state == FAILED and "boom" in done.failure.message and done.images[:len(left)] == left
    assert [image.kind for image in done.images] == ["picture"] * 3 + ["grid"]
    assert any("3 of 6 cells are missing: failed." in warning for warning in done.warnings)
    grid = done.images[-1]
    with Image.open(grid.path) as image:
        pixels = image.convert("RGB")
    blank, made = (0xe6, 0xe6, 0xe6), (1, 0, 7)
    assert pixels.getpixel((image.width - 2, image.height - 2)) == blank
    assert pixels.getpixel((image.width - 2, image.height - 66)) == made
    assert "Script: X/Y/Z plot, X Type: Steps" in read_image_info(grid.path).infotext == grid.infotext
    assert "txt2img-grids" in grid.path
    app.close()


def test_nothing_queued_or_finished_is_lost(tmp_path):
    data, (first, waiting, blocking) = killed(PROGRAM, tmp_path)
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
