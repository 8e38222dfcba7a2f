import dataclasses
import errno
import threading
import time

import pytest
from PIL import Image

from modules.app.messages import Run, Saved
from modules.app.saving import WAITING_PICTURES, Saver, Storage, wants_grid, with_hashes
from modules.core.errors import DiskFull
from modules.core.plan import ModelRef
from modules.core.request import Request
from modules.core.result import FinishedPicture, SavedImage
from modules.core.settings import Settings
from modules.core.task import Task
from modules.library.files import folders
from modules.library.hashes import HashCache
from modules.library.images import read_image_info
from modules.library.outputs import Outputs

REQUEST = Request(prompt="a cat", seed=5, batch_count=4, width=64, height=64)


@pytest.fixture
def places(tmp_path):
    return folders(tmp_path, {})


@pytest.fixture
def hashes(tmp_path):
    return HashCache(tmp_path / "hashes.sqlite3")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return str(path)


def finished(model, index=0, **parameters):
    entries = {"Steps": "1", "Seed": str(5 + index), "Size": "64x64", "Model hash": "", "Model": "model"} | parameters
    image = Image.new("RGB", (64, 64), (index * 20, 0, 0))
    return FinishedPicture(index, image, "a cat", "", 5 + index, 1, ModelRef(model), entries)


@pytest.mark.parametrize(("folder", "paths"), [
    ("", ["00000-a cat.png", "00001-a cat.png"]),
    ("trip/day [seed]", ["trip/day [seed]/a cat-00000.png", "trip/day [seed]/a cat-00001.png"]),
    ("../../x", ["x/a cat-00000.png", "x/a cat-00001.png"]),
])
def test_a_task_may_have_a_folder_of_its_own_where_pictures_have_their_sources_names(places, hashes, folder, paths):
    task = Task("extras", {}, pictures=2, folder=folder, settings=Settings(directories_filename_pattern="[seed]"))
    with Saver(Run("j", task), Storage(Outputs(places), hashes), lambda message: None) as saver:
        for index in range(2):
            saver.put(dataclasses.replace(finished("", index), basename="a cat"))
    saver.check()
    found = places.outputs / "extras-images"
    assert [image.path for image in saver.saved] == [str(found / path) for path in paths]


def test_pictures_are_on_disk_with_their_hash_before_anybody_hears_of_them(places, hashes, model):
    heard = []

    def report(message):
        heard.append((message.image, read_image_info(message.image.path).infotext))

    with Saver(Run("j", REQUEST), Storage(Outputs(places), hashes), report) as saver:
        saver.hash_ahead(model)
        for index in range(4):
            saver.put(finished(model, index))
    saver.check()
    assert [image.index for image, _ in heard] == [0, 1, 2, 3] == [image.index for image in saver.saved]
    # `printf weights | sha256sum` begins with these digits.
    assert all("Model hash: 9a129038d9, Model: model" in text for _, text in heard)
    assert [image.infotext for image, _ in heard] == [text for _, text in heard]


def test_sampling_does_not_wait_for_a_slow_hash(places, hashes, model):
    gate = threading.Event()

    class Slow(HashCache):
        def sha256(self, path, check=lambda: None):
            gate.wait(10)
            return super().sha256(path, check)

    slow = Slow(places.data_dir / "slow.sqlite3")
    heard = []
    with Saver(Run("j", REQUEST), Storage(Outputs(places), slow), heard.append) as saver:
        saver.hash_ahead(model)
        for index in range(WAITING_PICTURES):
            saver.put(finished(model, index))
        assert heard == []
        gate.set()
    assert len(heard) == WAITING_PICTURES


def test_what_an_earlier_run_saved_is_not_written_again(places, hashes, model):
    earlier = SavedImage("/x/0.png", "picture", 64, 64, 5, "t", 0)
    heard = []
    with Saver(Run("j", REQUEST, (earlier,)), Storage(Outputs(places), hashes), heard.append) as saver:
        for index in range(2):
            saver.put(finished(model, index))
    assert [message.image.index for message in heard] == [1] and saver.saved[0] == earlier


@pytest.mark.parametrize(("request_values", "settings"), [({"save_images": False}, {}), ({}, {"samples_save": False})])
def test_pictures_not_to_be_kept_go_to_the_spool(places, hashes, model, request_values, settings):
    request = dataclasses.replace(REQUEST, settings=Settings(**settings), **request_values)
    heard = []
    with Saver(Run("j", request), Storage(Outputs(places), hashes), heard.append) as saver:
        saver.put(finished(model))
    assert heard[0].image.path.startswith(str(places.spool)) and not places.outputs.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_an_interrupted_picture_is_spooled_unless_that_is_set(places, hashes, model, kept):
    request = dataclasses.replace(REQUEST, settings=Settings(save_incomplete_images=kept))
    with Saver(Run("j", request), Storage(Outputs(places), hashes), lambda message: None) as saver:
        saver.put(dataclasses.replace(finished(model), complete=False))
    (image,) = saver.saved
    assert image.path.startswith(str(places.outputs if kept else places.spool))


def test_a_full_disk_stops_the_job_and_leaves_the_pictures_before_it(places, hashes, model):
    written = []

    def write(path, data):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        path.write_bytes(data)

    heard = []
    with Saver(Run("j", REQUEST), Storage(Outputs(places, write), hashes), heard.append) as saver:
        for index in range(3):
            saver.put(finished(model, index))
        deadline = time.monotonic() + 10
        with pytest.raises(DiskFull, match="free"):
            while time.monotonic() < deadline:
                saver.put(finished(model, 3))
                time.sleep(0.005)
    assert [message.image.index for message in heard] == [0, 1]
    with pytest.raises(DiskFull):
        saver.check()


def test_a_grid_is_made_of_the_files(places, hashes, model):
    heard = []
    with Saver(Run("j", REQUEST), Storage(Outputs(places), hashes), heard.append) as saver:
        for index in range(4):
            saver.put(finished(model, index))
    assert saver.grid() == ""
    grid = heard[-1].image
    assert isinstance(heard[-1], Saved) and (grid.kind, grid.width, grid.height) == ("grid", 128, 128)
    with Image.open(grid.path) as image:
        assert [image.getpixel((x, y))[0] for y in (0, 64) for x in (0, 64)] == [0, 20, 40, 60]
    assert "txt2img-grids" in grid.path and read_image_info(grid.path).infotext == heard[0].image.infotext


def test_a_grid_that_is_only_shown_is_spooled_and_one_that_would_be_too_large_left_out(places, hashes, model,
                                                                                       monkeypatch):
    request = dataclasses.replace(REQUEST, settings=Settings(grid_save=False))
    heard = []
    with Saver(Run("j", request), Storage(Outputs(places), hashes), heard.append) as saver:
        for index in range(2):
            saver.put(finished(model, index))
    assert saver.grid() == "" and heard[-1].image.path.startswith(str(places.spool))
    monkeypatch.setattr("modules.app.saving.MAX_GRID_PIXELS", 100)
    assert "too large" in saver.grid()


@pytest.mark.parametrize(("pictures", "settings", "save_grid", "wanted"), [
    (2, {}, True, True), (1, {}, True, False), (1, {"grid_only_if_multiple": False}, True, True), (0, {}, True, False),
    (2, {"grid_save": False}, True, True), (2, {"grid_save": False, "return_grid": False}, True, False),
    (2, {}, False, False),
])
def test_when_there_is_a_grid(pictures, settings, save_grid, wanted):
    request = dataclasses.replace(REQUEST, settings=Settings(**settings), save_grid=save_grid)
    assert wants_grid(request, pictures) is wanted


def test_hashes_take_their_place_or_are_left_out(model):
    entries = with_hashes(finished(model), {model: "abc"}.__getitem__)
    assert list(entries) == ["Steps", "Seed", "Size", "Model hash", "Model"] and entries["Model hash"] == "abc"
    assert "Model hash" not in with_hashes(finished(model), lambda path: "")
    with_vae = dataclasses.replace(finished(model, 0, **{"VAE hash": ""}), model=ModelRef(model, "/v"))
    assert with_hashes(with_vae, lambda path: path[-1])["VAE hash"] == "v"
    assert "VAE hash" not in with_hashes(finished(model, 0, **{"VAE hash": ""}), lambda path: "x")


def test_a_model_that_vanished_costs_the_hash_and_not_the_picture(places, hashes, tmp_path):
    heard = []
    with Saver(Run("j", REQUEST), Storage(Outputs(places), hashes), heard.append) as saver:
        saver.put(finished(str(tmp_path / "gone")))
    assert "Model hash" not in heard[0].image.infotext and "Model: model" in heard[0].image.infotext


def test_hashes_of_other_checkpoints_follow_their_names(model):
    picture = dataclasses.replace(finished(model, Refiner="xl", **{"Hires checkpoint": "other"}),
                                  others={"Refiner": "/r", "Hires checkpoint": "/h", "Absent": "/a"})
    entries = with_hashes(picture, {"/r": "0123456789", "/h": "", model: "9a129038d9"}.get)
    assert (entries["Refiner"], entries["Hires checkpoint"]) == ("xl [0123456789]", "other")
    assert "Absent" not in entries


def test_what_a_picture_was_before_hires_fix_is_kept_on_disk_and_is_no_result(places, hashes, model):
    heard = []
    with Saver(Run("j", REQUEST), Storage(Outputs(places), hashes), heard.append) as saver:
        saver.put(dataclasses.replace(finished(model), stage="before-highres-fix"))
        saver.put(finished(model))
    assert [message.image.index for message in heard] == [0] and len(saver.saved) == 1
    names = sorted(path.name for path in places.outputs.rglob("*.png"))
    assert names == ["00000-5-before-highres-fix.png", "00001-5.png"]


def test_what_a_picture_was_before_is_not_kept_where_nothing_is_saved(places, hashes, model):
    run = Run("j", dataclasses.replace(REQUEST, save_images=False))
    with Saver(run, Storage(Outputs(places), hashes), lambda message: None) as saver:
        saver.put(dataclasses.replace(finished(model), stage="before-highres-fix"))
    assert list(places.data_dir.rglob("*.png")) == []
