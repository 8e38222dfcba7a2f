"""Margins of noise: the picture stays, its colours and its spectrum go on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from modules.imaging.outpaint import grown_mask, noisy_margins


def picture(smooth: bool) -> Image.Image:
    values = np.random.default_rng(0).random((64, 64, 3))
    if smooth:
        rows = np.sin(np.arange(64) / 10)
        values = np.stack([rows[:, None] * rows * 0.3 + 0.5] * 3, -1)
    return Image.fromarray((values * 255).astype(np.uint8))


def roughness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels.astype(float), axis=0)).mean() / pixels.astype(float).std())


@pytest.mark.parametrize("margins", [(5, 0, 0, 0), (0, 0, 13, 7), (1, 2, 3, 4), (0, 0, 0, 0)])
def test_the_picture_itself_stays(margins: tuple[int, int, int, int]) -> None:
    left, up, right, down = margins
    image = picture(False)
    grown = noisy_margins(image, margins)
    assert grown.size == (64 + left + right, 64 + up + down)
    assert grown.crop((left, up, left + 64, up + 64)).tobytes() == image.tobytes()


def test_noise_is_as_smooth_as_the_picture_and_the_more_so_the_steeper_it_falls() -> None:
    smooth = [np.asarray(noisy_margins(picture(True), (0, 64, 0, 0), exponent))[:64] for exponent in (0, 1, 2)]
    rough = np.asarray(noisy_margins(picture(False), (0, 64, 0, 0)))[:64]
    assert roughness(smooth[0]) > 2 * roughness(smooth[1]) > 2 * roughness(smooth[2])
    assert roughness(rough) > 2 * roughness(smooth[1])


def test_it_has_the_colours_of_the_picture_and_as_much_colour_as_asked_for() -> None:
    warm = Image.fromarray((np.asarray(picture(False)) * (1, 0.6, 0.2)).astype(np.uint8))
    margin = np.asarray(noisy_margins(warm, (0, 64, 0, 0)), dtype=float)[:64]
    assert np.abs(margin.mean((0, 1)) - np.asarray(warm).mean((0, 1))).max() < 8

    def spread(color_variation: float) -> float:
        pixels = np.asarray(noisy_margins(picture(False), (0, 64, 0, 0), 1.0, color_variation), dtype=float)[:64]
        return float(pixels.std(-1).mean())
    assert spread(0.0) < spread(0.3) < spread(1.0)


def test_it_depends_on_the_seed_alone() -> None:
    first, same, other = (noisy_margins(picture(False), (8, 8, 8, 8), seed=seed).tobytes() for seed in (1, 1, 2**63))
    assert first == same != other


def test_one_pixel_can_grow() -> None:
    grown = noisy_margins(Image.new("RGB", (1, 1), (9, 99, 199)), (8, 0, 8, 3))
    assert set(grown.get_flattened_data()) == {(9, 99, 199)}


def test_the_mask_grows_white() -> None:
    mask = np.asarray(grown_mask(Image.new("L", (3, 2)), (1, 2, 3, 4)))
    assert mask.shape == (8, 7) and (mask[2:4, 1:4] == 0).all() and mask.sum() == 255 * (56 - 6)


def test_the_margins_reach_into_the_picture_where_it_grows() -> None:
    mask = np.asarray(grown_mask(Image.new("L", (80, 40)), (5, 0, 0, 7), (3, 99)))
    assert mask.shape == (47, 85)
    assert (mask[:, :8] == 255).all() and (mask[30:] == 255).all()
    assert not mask[:30, 8:].any()
