"""Limits of a request."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.core.request import MAX_SEED, Request, check, hires_size, with_random_seeds
from modules.core.settings import Settings


@pytest.mark.parametrize(("field", "value", "said"), [
    ("width", 513, "Use 512 or 520"),
    ("height", 100, "Use 96 or 104"),
    ("width", 0, "64"),
    ("width", 10**9, "16384"),
    ("steps", 0, "steps"),
    ("steps", 10**6, "steps"),
    ("seed", 2**64, "seed"),
    ("seed", -2, "seed"),
    ("subseed_strength", 1.5, "subseed_strength"),
    ("guidance_scale", math.nan, "guidance_scale"),
    ("guidance_scale", math.inf, "guidance_scale"),
    ("batch_size", 0, "batch_size"),
    ("batch_count", 10**9, "batch_count"),
    ("prompt", "a" * 200_001, "200,001"),
    ("negative_prompt", "a" * 100_000_000, "negative_prompt"),
    ("denoising_strength", math.nan, "denoising_strength"),
    ("refiner_switch_at", 1.1, "refiner_switch_at"),
    ("hr_prompt", "a" * 200_001, "hr_prompt"),
    ("parameters", {"Template": "a" * 400_001}, "parameters"),
])
def test_a_bad_value_is_refused_with_what_would_do(field: str, value: object, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(Request(**{field: value}))
    assert said in str(caught.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"hr_scale": math.nan}, "hr_scale"), ({"hr_scale": 0.5}, "hr_scale"),
    ({"width": 1024, "hr_scale": 16.0}, "64 megapixels"),
    ({"hr_resize_x": -8}, "hr_resize_x"), ({"hr_resize_y": 32}, "Hires fix cannot make 32x32"),
    ({"hr_resize_x": 64, "hr_resize_y": 16384}, "cannot make 16384x16384"),
    ({"hr_second_pass_steps": 1001}, "hr_second_pass_steps"), ({"hr_guidance_scale": math.inf}, "hr_guidance_scale"),
    ({"denoising_strength": 0.0001}, "0 or at least 0.001"),
])
def test_hires_fix_has_its_limits_where_it_is_on(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(Request(enable_hr=True, **values))
    assert said in str(caught.value)
    if "denoising_strength" not in values:
        check(Request(**values))


@pytest.mark.parametrize(("values", "resized", "size"), [
    ({}, (1024, 1536), (1024, 1536)),
    ({"hr_scale": 1.3}, (664, 992), (664, 992)),
    ({"hr_resize_x": 800}, (800, 1200), (800, 1200)),
    ({"hr_resize_y": 1000}, (664, 1000), (664, 1000)),
    ({"hr_resize_x": 1024, "hr_resize_y": 1024}, (1024, 1536), (1024, 1024)),
    ({"hr_resize_x": 640, "hr_resize_y": 1536}, (1024, 1536), (640, 1536)),
])
def test_the_size_of_hires_fix_is_that_of_a1111(
    values: dict[str, float], resized: tuple[int, int], size: tuple[int, int]
) -> None:
    assert hires_size(Request(width=512, height=768, **values)) == (resized, size)


@given(st.integers(8, 256), st.integers(8, 256), st.integers(0, 4096), st.integers(0, 4096), st.floats(1, 4))
def test_what_hires_fix_resizes_to_covers_what_it_makes(width: int, height: int, wide: int, high: int, scale: float):
    resized, size = hires_size(Request(width=8 * width, height=8 * height, hr_resize_x=wide, hr_resize_y=high,
                                       hr_scale=scale))
    assert resized[0] >= size[0] and resized[1] >= size[1] and not any(side % 8 for side in (*resized, *size))


def test_pixels_and_pictures_are_bounded_together() -> None:
    with pytest.raises(InvalidRequest, match="megapixels"):
        check(Request(width=16384, height=16384))
    with pytest.raises(InvalidRequest, match="pictures"):
        check(Request(batch_size=64, batch_count=1000))


def test_the_largest_seed_is_allowed() -> None:
    request = Request(seed=MAX_SEED)
    assert check(request) is request


def test_only_seeds_of_minus_one_become_random() -> None:
    assert with_random_seeds(Request(), 5, 6) == Request(seed=5, subseed=6)
    assert with_random_seeds(Request(seed=0, subseed=1), 5, 6) == Request(seed=0, subseed=1)


PICTURE, OTHER = "0" * 32, "f" * 32


def image_request(**values: object) -> Request:
    return Request(**{"kind": "img2img", "init_images": (PICTURE,), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(("values", "said"), [
    ({"init_images": ()}, "0 pictures"),
    ({"init_images": (PICTURE, OTHER)}, "one for each of the batch"),
    ({"init_images": ("../../etc/passwd",)}, "not the id"),
    ({"mask": PICTURE + "\n"}, "not the id"),
    ({"enable_hr": True}, "Hires fix"),
    ({"kind": "txt2img"}, "Only image to image"),
    ({"resize_mode": 4}, "resize_mode"),
    ({"resize_mode": 3, "mask": OTHER}, "another resize mode"),
    ({"resize_mode": 3, "outpaint_left": 8}, "another resize mode"),
    ({"denoising_strength": 1e-9, "settings": Settings(img2img_fix_steps=True)}, "at least 0.001"),
    ({"initial_noise_multiplier": math.nan}, "initial_noise_multiplier"),
    ({"image_cfg_scale": -1.0}, "image_cfg_scale"),
    ({"mask_blur_x": -1}, "mask_blur_x"),
    ({"inpainting_fill": 4}, "inpainting_fill"),
    ({"inpaint_mode": "soft"}, "masked, differential"),
    ({"outpaint_fill": "x" * 1000}, "noise, edge"),
    ({"outpaint_right": 16_384}, "16896x512 is too large"),
])
def test_image_to_image_has_its_limits(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(image_request(**values))
    assert said in str(caught.value) and len(str(caught.value)) < 300


def test_a_batch_may_begin_from_one_picture_or_from_one_for_each() -> None:
    for images in ((PICTURE,), (PICTURE, OTHER)):
        request = image_request(init_images=images, batch_size=2, mask=OTHER, outpaint_up=7)
        assert check(request) is request


def test_a_picture_takes_the_place_of_the_first_pass_of_hires_fix_alone() -> None:
    key = "a" * 32
    assert check(Request(enable_hr=True, firstpass_image=key)).firstpass_image == key
    for bad in (Request(firstpass_image=key), Request(enable_hr=True, firstpass_image="../x"),
                Request(kind="img2img", init_images=(key,), firstpass_image=key)):
        with pytest.raises(InvalidRequest):
            check(bad)
