"""Limits of a request."""

from __future__ import annotations

import math

import pytest

from modules.core.errors import InvalidRequest
from modules.core.request import MAX_SEED, Request, check, with_random_seeds


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
    ("parameters", {"Template": "a" * 400_001}, "parameters"),
])
def test_a_bad_value_is_refused_with_what_would_do(field: str, value: object, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(Request(**{field: value}))
    assert said in str(caught.value)


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
