"""JSON values to dataclasses and back."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.job import Job
from modules.core.request import Request
from modules.core.result import Failure, Progress, SavedImage
from modules.core.settings import Settings

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(texts, st.integers(-1, 2**64 - 1), st.lists(texts, max_size=3), st.dictionaries(texts, json_values, max_size=3))
def test_a_request_survives_the_trip_through_json(prompt: str, seed: int, styles: list[str], values: dict) -> None:
    request = Request(prompt=prompt, seed=seed, styles=tuple(styles), plugins={"plugin": values})
    text = json.dumps(codec.encode(request))
    again = codec.decode(Request, json.loads(text))
    assert json.dumps(codec.encode(again)) == text
    assert (again.prompt, again.seed, again.styles) == (prompt, seed, tuple(styles))


def test_nested_dataclasses_come_back_as_themselves() -> None:
    job = Job("1", "me", "running", Request(), images=(SavedImage("a", "picture", 1, 2, 3, "x"),),
              failure=Failure("A", "b"), progress=Progress(eta=2))
    assert codec.decode(Job, json.loads(json.dumps(codec.encode(job)))) == job


@given(json_values)
def test_anything_else_is_refused_with_a_reason_and_nothing_worse(value: object) -> None:
    for kind in (Request, Job, Settings):
        try:
            codec.decode(kind, value)
        except InvalidRequest as error:
            assert error.message
        else:
            assert isinstance(value, dict)


@pytest.mark.parametrize(("values", "named"), [
    ({"widht": 512}, "widht"),
    ({"width": "512"}, "width"),
    ({"width": 512.5}, "width"),
    ({"width": True}, "width"),
    ({"guidance_scale": "high"}, "guidance_scale"),
    ({"prompt": None}, "prompt"),
    ({"styles": "a"}, "styles"),
    ({"styles": ["a", 1]}, "styles[1]"),
    ({"settings": {"jpeg_quality": []}}, "settings.jpeg_quality"),
])
def test_the_message_names_the_field(values: dict, named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        codec.decode(Request, values)
    assert named in caught.value.message


def test_numbers_are_converted_only_where_nothing_is_lost() -> None:
    request = codec.decode(Request, {"guidance_scale": 7, "steps": 20.0})
    assert (request.guidance_scale, type(request.guidance_scale)) == (7.0, float)
    assert (request.steps, type(request.steps)) == (20, int)


def test_unknown_fields_can_be_ignored() -> None:
    assert codec.decode(Request, {"width": 64, "later": 1}, ignore_unknown=True) == Request(width=64)


def test_infinite_numbers_pass_the_codec_and_are_left_to_the_check_of_ranges() -> None:
    assert math.isinf(codec.decode(Request, {"guidance_scale": math.inf}).guidance_scale)


def test_every_contract_is_frozen() -> None:
    for kind in (Request, Job, Settings, Progress, Failure, SavedImage):
        assert dataclasses.fields(kind) and kind.__dataclass_params__.frozen
