"""Regular expressions of users: what they match, and what is refused."""

import time

import pytest

from modules.core.errors import InvalidRequest
from modules.library.name_patterns import MAX_PATTERN, check_pattern, matching

NAMES = ("first_stage_model.encoder.weight", "cond_stage_model.a", "model.diffusion_model.b")


@pytest.mark.parametrize(("text", "found"), [
    ("", set()), (r"^cond_stage_model\.", {NAMES[1]}), ("stage", set(NAMES[:2])), (r"\.[ab]$", set(NAMES[1:])),
])
def test_names_in_which_the_expression_is_found(text, found):
    assert matching(text, NAMES) == found


@pytest.mark.parametrize("text", ["(", "[", "a" * (MAX_PATTERN + 1), "(?P<a>x)(?P=b)", "*"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(InvalidRequest, match="regular expression"):
        check_pattern(text)
    with pytest.raises(InvalidRequest):
        matching(text, NAMES)


def test_an_expression_that_tries_everything_is_given_up():
    began = time.monotonic()
    with pytest.raises(InvalidRequest, match="takes too long"):
        matching(r"(\w+\.?)+[!?]$", [f"model.{'a' * 60}{number}" for number in range(1000)], 0.2)
    assert time.monotonic() - began < 30  # seconds instead of the age of the universe


@pytest.mark.parametrize("text", ["(?:(?:a{500}){500}){500}", "(a{ 2 , 99999 })", "a{20000}"])
def test_repetitions_that_would_be_written_out_are_counted_first(text):
    with pytest.raises(InvalidRequest, match="repetitions"):
        check_pattern(text)
    check_pattern("a{2,3}b{100}")
