"""Colours against OpenCV's conversion and an independent statement of each rule."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from modules.imaging import color

RGB = np.random.default_rng(0).random((17, 13, 3))


def test_lab_is_opencvs_and_its_inverse_leads_back() -> None:
    lab = color.to_lab(RGB)
    assert np.abs(lab - cv2.cvtColor(RGB.astype(np.float32), cv2.COLOR_RGB2LAB)).max() < 0.5  # half of its 8 bit step
    assert np.abs(color.from_lab(lab) - RGB).max() < 1e-6


def test_a_matched_histogram_is_the_target_in_the_order_of_the_values() -> None:
    values, target = RGB[..., 0], np.random.default_rng(1).normal(5, 2, (17, 13))
    matched = color.matched_histogram(values, target)
    assert np.allclose(np.sort(matched.ravel()), np.sort(target.ravel()))
    assert (np.argsort(matched.ravel()) == np.argsort(values.ravel())).all()


def test_the_luminosity_is_exact_and_in_range() -> None:
    wanted = np.random.default_rng(2).random(RGB.shape[:2])
    result = color.with_luminosity(RGB, wanted)
    assert np.abs(result @ (0.3, 0.59, 0.11) - wanted).max() < 1e-9
    assert result.min() > -1e-9 and result.max() < 1 + 1e-9


def test_a_picture_keeps_itself_and_a_cold_one_becomes_warm() -> None:
    picture = Image.fromarray((RGB * 255).astype(np.uint8))
    assert np.abs(np.asarray(color.corrected(picture, picture), dtype=int) - np.asarray(picture)).max() <= 1
    warm = Image.fromarray((RGB * (255, 160, 60)).astype(np.uint8))
    cold = Image.fromarray((RGB[::-1] * (60, 160, 255)).astype(np.uint8))
    red, _, blue = np.asarray(color.corrected(cold, warm), dtype=float).mean((0, 1))
    assert red > blue + 30


def test_one_colour_can_be_corrected() -> None:
    plain = Image.new("RGB", (4, 4))
    assert color.corrected(plain, Image.new("RGB", (4, 4), (255, 0, 0))).getpixel((0, 0)) == (0, 0, 0)
