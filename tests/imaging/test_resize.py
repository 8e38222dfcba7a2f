"""Upscalers without a model: exact sizes, and each its own filter."""

import numpy as np
import pytest
from PIL import Image

from modules.imaging.resize import RESAMPLERS


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
