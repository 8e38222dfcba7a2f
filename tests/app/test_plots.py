import dataclasses

import numpy as np
import pytest
from PIL import Image

from modules.app.plots import drawings, perform, tile
from modules.core.errors import Interrupted
from modules.core.grid import Grid
from modules.core.job import CANCELLED, FAILED, FINISHED, INTERRUPTED, shown_images
from modules.core.plot import Plot
from modules.core.request import Request
from modules.core.result import Failure, Part, Progress, SavedImage
from modules.imaging import sheets
from tests.app.test_queue import eventually
from tests.fixtures.fake_engine import FakeEngine, make_app

COLOURS = ("red", "lime", "blue", "yellow", "cyan", "magenta", "gray", "maroon")
GRID = Grid("Steps", "1, 2", "CFG Scale", "5, 7", "Prompt S/R", "cat, dog", draw_legend=False)


class Watch:
    def __init__(self, refuse=False):
        self.pictures, self.phases, self.refuse = [], [], refuse

    def phase(self, text):
        self.phases.append(text)

    def check(self):
        if self.refuse:
            raise Interrupted("Stop.")

    def batch(self, first, pictures):
        pass

    def step(self, done, total):
        pass

    def picture(self, picture):
        self.pictures.append(picture)


@pytest.fixture
def saved(tmp_path):
    def save(number, size=(16, 12)):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", size, COLOURS[number]).save(path)
        text = f"prompt {number}\nNegative prompt: no\nSteps: 1, Sampler: Euler, Seed: {number}, Size: 16x12"
        return SavedImage(str(path), "picture", *size, number, text, 0)
    return save


@pytest.fixture
def plot(saved):
    return Plot(GRID, ("1", "2"), ("5", "7"), ("cat", "dog"), tuple((number,) for number in range(8)),
                parts=tuple(Part(FINISHED, (saved(number),)) for number in range(8)))


def colour(image, x, y):
    return image.getpixel((x * 16 + 8, y * 12 + 6))


def test_cells_are_where_their_values_are_and_the_infotext_names_the_axes(plot):
    watch = Watch()
    assert perform(plot, watch, frozenset()).warnings == ()
    (picture,) = watch.pictures
    assert (picture.kind, picture.index, picture.seed, picture.image.size) == ("grid", 0, 0, (64, 24))
    # Z is side by side, within it rows are Y and columns X.
    assert [colour(picture.image, x, y) for y in range(2) for x in range(4)] == [
        Image.new("RGB", (1, 1), COLOURS[number]).getpixel((0, 0)) for number in (0, 1, 4, 5, 2, 3, 6, 7)]
    assert (picture.prompt, picture.negative_prompt) == ("prompt 0", "no")
    assert dict(picture.parameters) == {
        "Steps": "1", "Sampler": "Euler", "Seed": "0", "Size": "16x12", "Script": "X/Y/Z plot", "X Type": "Steps",
        "X Values": "1, 2", "Y Type": "CFG Scale", "Y Values": "5, 7", "Z Type": "Prompt S/R", "Z Values": "cat, dog"}


def test_sub_grids_follow_where_they_are_wanted_and_those_already_made_are_left_out(plot):
    wanted = dataclasses.replace(plot, grid=dataclasses.replace(GRID, include_sub_grids=True))
    watch = Watch()
    perform(wanted, watch, frozenset({1}))
    first, last = watch.pictures
    assert (first.index, last.index, last.image.size) == (0, 2, (32, 24))
    assert colour(last.image, 1, 1) == Image.new("RGB", (1, 1), COLOURS[7]).getpixel((0, 0))
    assert last.prompt == "prompt 4" and "Z Type" not in last.parameters
    flat = dataclasses.replace(wanted, z_labels=("",), cells=plot.cells[:4])
    assert len(list(drawings(flat))) == 1


def test_missing_cells_are_said_and_the_others_drawn(plot, saved):
    parts = (Part(FAILED), Part(CANCELLED), Part(INTERRUPTED), Part(FINISHED), *plot.parts[4:])
    watch = Watch()
    outcome = perform(dataclasses.replace(plot, parts=parts), watch, frozenset())
    assert outcome.warnings == ("1 of 8 cells is missing: failed.", "1 of 8 cells is missing: cancelled.",
                                "1 of 8 cells is missing: interrupted.", "1 of 8 cells is missing: skipped.")
    (picture,) = watch.pictures
    assert np.asarray(picture.image)[0, 0].tolist() == [0xe6] * 3 and picture.seed == 4
    assert colour(picture.image, 3, 1) == Image.new("RGB", (1, 1), COLOURS[7]).getpixel((0, 0))
    nothing = perform(dataclasses.replace(plot, parts=(Part(FAILED),) * 8), watch, frozenset())
    assert "No cell has a picture" in nothing.warnings[-1] and len(watch.pictures) == 1


def test_a_cell_of_several_pictures_is_a_grid_of_them(saved):
    found = tile([Part(FINISHED, (saved(0), saved(1))), Part(FINISHED, (saved(2),))])
    image = found.open()
    assert found.size == image.size == (32, 24)
    assert image.getpixel((24, 6)) == (0, 255, 0) and image.getpixel((8, 18)) == (0, 0, 255)
    grid = dataclasses.replace(saved(3), kind="grid")
    assert tile([Part(FINISHED, (saved(0), grid))]).size == (16, 12)
    assert tile([]).word == "missing"


def test_a_picture_that_was_deleted_since_is_missing(plot, tmp_path):
    (tmp_path / "0.png").unlink()
    watch = Watch()
    perform(plot, watch, frozenset())
    assert np.asarray(watch.pictures[0].image)[0, 0].tolist() == [0xe6] * 3


def test_a_grid_too_large_for_memory_is_drawn_smaller_and_says_so(plot, monkeypatch):
    monkeypatch.setattr(sheets, "MAX_SIDE", 32)
    watch = Watch()
    (warning,) = perform(plot, watch, frozenset()).warnings
    assert "of its size" in warning and max(watch.pictures[0].image.size) <= 32


def test_it_stops_where_it_is_told_to(plot):
    with pytest.raises(Interrupted):
        perform(plot, Watch(refuse=True), frozenset())


SMALL = Request(prompt="a cat", width=64, height=64, steps=2, seed=1, subseed=1)
TWO_BY_TWO = Grid("Steps", "1, 2", "CFG Scale", "5, 7")
WAIT = 10.0


@pytest.fixture
def engine(tmp_path):
    failure = Failure("X", "It failed.", "Why.", 507)
    return FakeEngine(tmp_path / "outputs" / "txt2img-images", failure={"fail": failure})


@pytest.fixture
def app(tmp_path, engine):
    app = make_app(tmp_path, engine)
    app.start()
    yield app
    app.close()


def test_a_plot_is_one_job_whose_cells_come_before_its_grid(app):
    done = app.wait(app.submit(dataclasses.replace(SMALL, grid=TWO_BY_TWO)).id, WAIT)
    assert done.state == FINISHED and [image.kind for image in done.images] == ["picture"] * 4 + ["grid"]
    assert shown_images(done) == (4,)
    grid = done.images[4]
    assert grid.width > 128 and "Script: X/Y/Z plot, X Type: Steps" in grid.infotext


def test_an_interrupted_plot_is_drawn_of_what_there_is(app, engine):
    job = app.submit(dataclasses.replace(SMALL, prompt="slow", steps=200, grid=dataclasses.replace(
        TWO_BY_TWO, x_values="1, 200")))
    engine.seconds_per_step = 0.02
    eventually(lambda: (app.job(job.id).progress or Progress()).picture == 1)  # the second cell runs
    app.cancel(job.id)
    done = app.wait(job.id, WAIT)
    assert done.state == INTERRUPTED and [image.kind for image in done.images] == ["picture", "grid"]
    assert any("missing: cancelled" in warning for warning in done.warnings)


def test_a_plot_that_waits_is_cancelled_as_a_whole(app, engine):
    engine.hold.clear()
    before, job = app.submit(SMALL), app.submit(dataclasses.replace(SMALL, grid=TWO_BY_TWO))
    assert app.cancel(job.id).state == CANCELLED
    engine.hold.set()
    assert app.wait(before.id, WAIT).state == FINISHED and app.job(job.id).images == ()


def test_a_cell_that_fails_does_not_lose_the_others(app):
    done = app.wait(app.submit(dataclasses.replace(SMALL, grid=Grid("Prompt S/R", "cat, fail, dog"))).id, WAIT)
    assert done.state == FAILED and done.failure.status == 507
    assert [image.kind for image in done.images] == ["picture", "picture", "grid"]
    assert "1 of 3 cells is missing: failed." in done.warnings
