import numpy as np
import pytest
from PIL import Image

from modules.upscaling.rows import collected, resized
from tests.upscaling.small import picture


def cut(pixels, *heights):
    top = np.iinfo(pixels.dtype).max
    at = 0
    for height in heights:
        yield pixels[at:at + height].astype(np.float32) / top
        at += height


@pytest.mark.parametrize("size", [(60, 45), (30, 22), (61, 44), (9, 7), (130, 97)])
@pytest.mark.parametrize("heights", [(45,), (1, 3, 20, 21), (20, 25)])
def test_rows_are_resized_as_the_whole_would_be(size, heights):
    pixels = picture(60, 45)
    made = collected(cut(pixels, *heights), (60, 45), size, pixels.dtype)
    expected = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_sixteen_bits_stay_sixteen_bits():
    pixels = picture(40, 30, dtype=np.uint16)
    same = collected(cut(pixels, 10, 20), (40, 30), (40, 30), pixels.dtype)
    assert same.dtype == np.uint16 and np.abs(same.astype(int) - pixels).max() <= 1
    half = resized(pixels, (20, 15))
    plane = Image.fromarray(pixels[:, :, 1].astype(np.float32)).resize((20, 15), Image.Resampling.LANCZOS)
    assert half.dtype == np.uint16 and len(np.unique(half)) > 256
    assert np.abs(half[:, :, 1] - np.asarray(plane)).max() <= 0.51


def test_rows_that_are_missing_are_an_error():
    with pytest.raises(ValueError, match="20 rows of 45"):
        collected(cut(picture(60, 45), 20), (60, 45), (60, 45), np.dtype(np.uint8))
