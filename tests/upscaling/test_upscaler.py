import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from modules.core.errors import InvalidModel, OutOfMemory
from modules.core.settings import Settings, with_values
from modules.imaging.upscalers import Occasion
from modules.upscaling import upscaler as module
from modules.upscaling.networks import COMPONENT, Network
from modules.upscaling.pixels import Picture, opened, shown
from modules.upscaling.tiles import Tiles
from modules.upscaling.upscaler import Shelf, tiles_of
from tests.upscaling.small import compact, needs, picture, shelf_of

pytestmark = needs("spandrel")


def whole(network, pixels):
    """Run a network over a whole picture."""
    made = network.run(pixels.astype(np.float32) / 255, torch.device("cpu"))
    return np.rint(made * 255).astype(int)


@pytest.fixture
def upscalers(tmp_path):
    return shelf_of(tmp_path, double=compact(2), clean=compact(1))


def test_a_picture_is_what_the_network_makes_of_it(upscalers):
    pixels = picture(40, 30)
    double = upscalers["double"]
    made = np.asarray(double.upscale(Image.fromarray(pixels), 80, 60)).astype(int)
    np.testing.assert_array_equal(made, whole(double.shelf.network(double.file), pixels))


def test_tiles_leave_no_seam(upscalers, monkeypatch):
    monkeypatch.setattr(module, "SIDES", (48, 32))
    double, pixels, told = upscalers["double"], picture(100, 90), []
    watched = double.told(Occasion(advance=lambda done, total: told.append((done, total))))
    made = watched.enlarged(Picture(pixels), (200, 180)).pixels
    assert np.abs(made.astype(int) - whole(double.shelf.network(double.file), pixels)).max() <= 1
    assert told[0][0] == 0 and told[-1] == (told[0][1], told[0][1]) and told[0][1] > 4


@pytest.mark.parametrize("size, runs", [((80, 60), 1), ((79, 50), 1), ((150, 120), 2), ((500, 400), 3), ((40, 30), 1),
                                        ((20, 15), 0)])
def test_a_network_is_asked_until_the_size_is_reached(upscalers, size, runs):
    told = []
    watched = upscalers["double"].told(Occasion(advance=lambda done, total: told.append(done)))
    made = watched.enlarged(Picture(picture(40, 30)), size)
    assert made.size == size and told.count(0) == runs


def test_a_network_that_only_cleans_does_so_once(upscalers):
    clean, pixels = upscalers["clean"], picture(30, 20)
    expected = whole(clean.shelf.network(clean.file), pixels)
    np.testing.assert_array_equal(clean.enlarged(Picture(pixels), (30, 20)).pixels, expected)
    assert clean.enlarged(Picture(pixels), (60, 40)).size == (60, 40)


def test_alpha_stays_and_colours_are_those_without_it(upscalers):
    pixels = picture(20, 16)
    alpha = np.tile(np.linspace(0, 255, 20, dtype=np.uint8), (16, 1))
    image = Image.fromarray(np.dstack([pixels, alpha]))
    made = upscalers["double"].upscale(image, 40, 32)
    assert made.mode == "RGBA"
    plain = upscalers["double"].upscale(Image.fromarray(pixels), 40, 32)
    np.testing.assert_array_equal(np.asarray(made)[:, :, :3], np.asarray(plain))
    expected = Image.fromarray(alpha).resize((40, 32), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(made)[:, :, 3].astype(int) - np.asarray(expected)).max() <= 1


def test_sixteen_bits_stay(upscalers):
    made = upscalers["double"].enlarged(Picture(picture(20, 16, dtype=np.uint16)), (40, 32))
    assert made.pixels.dtype == np.uint16 and len(np.unique(made.pixels)) > 600


def test_one_file_is_loaded_once_until_it_changes(upscalers):
    double = upscalers["double"]
    first = double.shelf.network(double.file)
    assert double.shelf.network(double.file) is first
    assert upscalers["double"].shelf.models.keys()[0][0] == COMPONENT


def test_tiles_are_halved_until_memory_suffices(upscalers, monkeypatch):
    run, sides = Network.run, []
    double, pixels = upscalers["double"], picture(300, 70)
    expected = whole(double.shelf.network(double.file), pixels)

    def short_of_memory(self, pixels, device):
        sides.append(max(pixels.shape[:2]))
        if max(pixels.shape[:2]) > 70:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")
        return run(self, pixels, device)

    monkeypatch.setattr(Network, "run", short_of_memory)
    made = double.enlarged(Picture(pixels), (600, 140)).pixels.astype(int)
    assert [side for side in sides if side > 70] == [256, 128]
    assert np.abs(made - expected).max() <= 1


def test_it_gives_up_with_a_clear_word(upscalers, monkeypatch):
    def no_memory(self, pixels, device):
        raise MemoryError

    monkeypatch.setattr(Network, "run", no_memory)
    with pytest.raises(OutOfMemory, match="double.*40x30"):
        upscalers["double"].upscale(Image.new("RGB", (40, 30)), 80, 60)


def test_other_errors_are_not_taken_for_want_of_memory(upscalers, monkeypatch):
    monkeypatch.setattr(Network, "run", lambda self, pixels, device: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        upscalers["double"].upscale(Image.new("RGB", (40, 30)), 80, 60)


def test_files_come_and_go(tmp_path):
    upscalers = shelf_of(tmp_path)
    before = set(upscalers)
    assert set(shelf_of(tmp_path, late=compact(2))) == before | {"late"} == set(upscalers)
    (tmp_path / "models" / "ESRGAN" / "late.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(InvalidModel, match="late.safetensors"):
        upscalers["late"].upscale(Image.new("RGB", (8, 8)), 16, 16)


def test_the_tile_follows_free_memory(upscalers, monkeypatch):
    double = upscalers["double"]
    network = double.shelf.network(double.file)
    for free, side in ((1 << 40, 256), (2 * 100**2 * network.bytes_per_pixel(), 96), (0, 32)):
        monkeypatch.setattr(module, "available", lambda device, free=free: free)
        assert Shelf(double.shelf.models, double.shelf.placement).tile(network, 4000, 3000) == side
    network.descriptor.tiling = type(network.descriptor.tiling).INTERNAL
    assert double.shelf.tile(network, 4000, 3000) == 4000


def test_settings_say_how_large_tiles_are(upscalers, monkeypatch):
    run, sides = Network.run, []

    def watched(self, pixels, device):
        sides.append(pixels.shape[1])
        return run(self, pixels, device)

    monkeypatch.setattr(Network, "run", watched)
    settings = with_values(Settings(), {"ESRGAN_tile": 48, "ESRGAN_tile_overlap": 8, "DAT_tile": 16})
    upscalers["double"].told(Occasion(settings)).upscale(Image.new("RGB", (88, 20)), 176, 40)
    assert sides == [48, 48]
    upscalers["double"].upscale(Image.new("RGB", (88, 20)), 176, 40)
    assert sides[2:] == [88]


@pytest.mark.parametrize(("architecture", "setting"), [
    ("ESRGAN", "ESRGAN_tile"), ("Compact", "ESRGAN_tile"), ("HAT", "ESRGAN_tile"), ("DAT", "DAT_tile"),
    ("SwinIR", "SWIN_tile"), ("Swin2SR", "SWIN_tile"), ("SCUNet", "SCUNET_tile"),
])
def test_each_architecture_has_the_settings_that_a1111_gives_it(architecture, setting):
    settings = with_values(Settings(), {setting: 96, f"{setting}_overlap": 7})
    assert tiles_of(settings, architecture, 256) == Tiles(96, 7)
    assert tiles_of(Settings(), architecture, 256) == Tiles(256)
    assert tiles_of(with_values(Settings(), {setting: 1}), architecture, 256) == Tiles(32)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "1"])
def test_pictures_of_any_mode_are_opened(mode):
    picture = opened(Image.new(mode, (5, 4)))
    assert picture.size == (5, 4) and picture.pixels.shape == (4, 5, 3)
    assert shown(picture).mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")
    assert dataclasses.is_dataclass(picture)
