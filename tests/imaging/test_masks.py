"""Masks against OpenCV's Gaussian, and what each operation must leave alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modules.imaging import masks


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("x", "y"), [(4, 4), (1, 9), (0, 3), (2, 0), (40, 40)])
def test_the_blur_is_opencvs_gaussian_of_a1111s_size(x: int, y: int) -> None:
    mask = rectangle((60, 50), (10, 20, 31, 33))
    expected = np.asarray(mask, dtype=np.float32)
    if x:
        expected = cv2.GaussianBlur(expected, (2 * int(2.5 * x + 0.5) + 1, 1), x)
    if y:
        expected = cv2.GaussianBlur(expected, (1, 2 * int(2.5 * y + 0.5) + 1), 0, sigmaY=y)
    assert np.abs(np.asarray(masks.blurred(mask, x, y), dtype=float) - expected).max() <= 0.51


def test_a_blur_wider_than_the_mask_is_possible() -> None:
    assert masks.blurred(Image.new("L", (1, 1), 255), 64, 64).getpixel((0, 0)) == 255


def test_a_painted_layer_gives_its_alpha_and_a_picture_its_grey() -> None:
    layer = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    layer.putpixel((1, 0), (0, 0, 0, 128))
    layer.putpixel((2, 0), (0, 0, 0, 129))
    assert list(masks.mask_of(layer).tobytes()) == [0, 0, 255]
    assert list(masks.mask_of(layer, rounded=False).tobytes()) == [0, 128, 129]
    assert list(masks.mask_of(layer, invert=True).tobytes()) == [255, 255, 0]
    assert list(masks.mask_of(Image.new("RGB", (1, 1), (90, 90, 90))).tobytes()) == [90]


@pytest.mark.parametrize(("box", "padding", "size", "expected"), [
    ((40, 40, 60, 60), 0, (64, 64), (40, 40, 60, 60)),
    ((40, 40, 60, 60), 10, (64, 64), (30, 30, 70, 70)),
    ((40, 40, 60, 60), 0, (128, 64), (30, 40, 70, 60)),
    ((40, 40, 60, 60), 0, (64, 128), (40, 30, 60, 70)),
    ((0, 40, 20, 60), 0, (128, 64), (0, 40, 40, 60)),
    ((80, 40, 100, 60), 0, (128, 64), (60, 40, 100, 60)),
    ((0, 0, 100, 20), 0, (64, 64), (0, 0, 100, 100)),
    ((0, 0, 100, 10), 500, (64, 512), (0, 0, 100, 100)),
])
def test_the_region_has_the_proportions_where_it_can(
    box: masks.Box, padding: int, size: tuple[int, int], expected: masks.Box
) -> None:
    assert masks.region(rectangle((100, 100), box), padding, *size) == expected


def test_an_empty_mask_has_no_region() -> None:
    with pytest.raises(ValueError, match="empty"):
        masks.region(Image.new("L", (9, 9)), 0, 64, 64)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 39), st.integers(0, 29), st.integers(1, 40), st.integers(1, 30), st.integers(0, 50),
       st.integers(1, 9), st.integers(1, 9))
def test_the_region_covers_the_mask_and_stays_inside(
    left: int, top: int, wide: int, high: int, padding: int, width: int, height: int
) -> None:
    mask = rectangle((40, 30), (left, top, min(left + wide, 40), min(top + high, 30)))
    box, found = masks.region(mask, padding, width, height), mask.getbbox()
    assert found is not None
    assert 0 <= box[0] <= found[0] and found[2] <= box[2] <= 40 and 0 <= box[1] <= found[1] and found[3] <= box[3] <= 30


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 12), st.booleans(), st.integers(0, 12))
def test_outside_of_the_blurred_mask_nothing_changes(seed: int, blur: int, part: bool, padding: int) -> None:
    source = np.random.default_rng(seed)
    left, top = source.integers(0, 30, 2)
    mask = masks.blurred(rectangle((48, 40), (left, top, left + 5, top + 7)), blur, blur / 2)
    box = masks.region(mask, padding, 64, 32) if part else None
    original, made = noise(48, 40), noise(64, 32, 1) if part else noise(48, 40, 1)
    for overlay in (mask, masks.doubled(mask)):
        result, kept = np.asarray(masks.pasted(made, original, overlay, box)), np.asarray(mask) == 0
        assert (result[kept] == np.asarray(original)[kept]).all()
        assert not (result == np.asarray(original)).all()


def test_what_is_filled_has_the_colours_around_it_and_the_rest_its_own() -> None:
    picture = Image.new("RGB", (64, 64), (200, 40, 40))
    picture.paste((0, 255, 0), (20, 20, 40, 40))
    result = np.asarray(masks.filled(picture, rectangle((64, 64), (20, 20, 40, 40))), dtype=int)
    assert np.abs(result - (200, 40, 40)).max() <= 8


def test_everything_masked_can_be_filled_too() -> None:
    assert masks.filled(noise(8, 8), Image.new("L", (8, 8), 255)).size == (8, 8)


def test_a_mask_of_latents_is_rounded_or_not() -> None:
    mask = rectangle((64, 64), (0, 0, 36, 64))
    soft, hard = (masks.latent_mask(mask, 8, 8, rounded) for rounded in (False, True))
    assert set(np.unique(hard)) == {0.0, 1.0} and hard.dtype == np.float32 and hard.shape == (8, 8)
    assert 0.2 < soft[0, 4] < 0.8
