"""Upscalers without a model: exact sizes, and each its own filter."""

import numpy as np
import pytest
from PIL import Image

from modules.imaging.resize import RESAMPLERS, extended, fitted


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))


@pytest.mark.parametrize(("name", "filter"), [
    ("None", Image.Resampling.LANCZOS), ("Lanczos", Image.Resampling.LANCZOS), ("Nearest", Image.Resampling.NEAREST),
    ("Bicubic", Image.Resampling.BICUBIC)])
def test_each_resamples_with_its_filter_to_any_size(image, name, filter):
    upscaler = RESAMPLERS[name]
    for size in ((16, 24), (3, 40)):
        assert np.array_equal(upscaler.upscale(image, *size), image.resize(size, filter))
    assert upscaler.name == name and len(RESAMPLERS) == 4


def test_the_same_size_is_the_same_picture(image):
    assert all(upscaler.upscale(image, 7, 5) is image for upscaler in RESAMPLERS.values())


def test_nearest_repeats_cells(image):
    larger = np.asarray(RESAMPLERS["Nearest"].upscale(image, 21, 15))
    assert np.array_equal(larger, np.asarray(image).repeat(3, 0).repeat(3, 1))


def test_the_resize_modes_stretch_cover_or_fit(image):
    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 30, 20))
    assert fitted(wide, 20, 20, 0).tobytes() == wide.resize((20, 20), Image.Resampling.LANCZOS).tobytes()
    assert set(fitted(wide, 20, 20, 1).get_flattened_data()) == {(0, 0, 255)}
    filled = fitted(wide, 40, 40, 2)
    assert filled.crop((0, 10, 40, 30)).tobytes() == wide.tobytes()
    assert (np.asarray(filled) == np.asarray(wide)[:1]).all()
    tall = fitted(wide.transpose(Image.Transpose.ROTATE_90), 40, 40, 2)
    assert tall.tobytes() == filled.transpose(Image.Transpose.ROTATE_90).tobytes()


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (65, 64)])
def test_every_mode_gives_the_size_for_any_picture(mode, size):
    for kind in ("RGB", "L"):
        assert fitted(Image.new(kind, size, 7 if kind == "L" else (7, 7, 7)), 72, 64, mode).size == (72, 64)


def test_a_picture_of_the_size_stays_itself_in_every_mode(image):
    for mode in (0, 1, 2):
        assert fitted(image, *image.size, mode).tobytes() == image.tobytes()


def test_extending_repeats_the_outermost_pixels(image):
    expected = np.pad(np.asarray(image), ((2, 4), (1, 3), (0, 0)), mode="edge")
    assert (np.asarray(extended(image, (1, 2, 3, 4))) == expected).all()
