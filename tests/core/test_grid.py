"""The syntax of values against A1111's documentation of it, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core import grid
from modules.core.errors import InvalidRequest
from modules.core.grid import Grid


@pytest.mark.parametrize(("text", "values"), [
    ("1, 2,3", (1, 2, 3)), ("7", (7,)), ("", ()), ("1,,2,", (1, 2)), ("-1", (-1,)), ("1\n2", (1, 2)),
    # Simple ranges, with a step in round and a count in square brackets.
    ("1-5", (1, 2, 3, 4, 5)), ("1-5 (+2)", (1, 3, 5)), ("10-5 (-3)", (10, 7)), ("1-10 [5]", (1, 3, 5, 7, 10)),
    ("1-5(+2), 9", (1, 3, 5, 9)), ("0-100 [3]", (0, 50, 100)), ("5 - 7", (5, 6, 7)), ("-2 - 1", (-2, -1, 0, 1)),
    ("10-1 [4]", (10, 7, 4, 1)), ("5-9 [1]", (5,)), ("3-1 (-1)", (3, 2, 1)), ("1-4 (2)", (1, 3)),
])
def test_whole_numbers(text, values):
    assert grid.integers(text) == values


@pytest.mark.parametrize(("text", "values"), [
    ("1-3 (+0.5)", (1, 1.5, 2, 2.5, 3)), ("0.0-1.0 [6]", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)), ("7.5", (7.5,)),
    ("1-2 (+0.3)", (1, 1.3, 1.6, 1.9)), ("0-1 (+0.1)", tuple(number / 10 for number in range(11))),
    ("5, 7 - 9", (5, 7, 8, 9)), ("1e-3", (0.001,)), ("-1.5", (-1.5,)), ("1-0 (-0.5)", (1, 0.5, 0)),
])
def test_numbers(text, values):
    assert grid.floats(text) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("text", ["cat", "1.5", "1-", "1-5 (+x)", "1-5 (0)", "1-5 (-1)", "5-1", "1-5 [+2]", "9" * 5000])
def test_what_is_no_whole_number_is_named(text):
    with pytest.raises(InvalidRequest, match=text[:3].replace("[", r"\[")):
        grid.integers(text)


@pytest.mark.parametrize("text", ["1-1000000000", "1-2 [999999999]", ", ".join("1" * 10_001), "1-9000, 1-9000"])
def test_too_many_values_are_refused_before_they_are_made(text):
    with pytest.raises(InvalidRequest, match="10,000"):
        grid.integers(text)


@pytest.mark.parametrize(("text", "values"), [
    ("a, b", ("a", "b")), ('"a, b", c', ("a, b", "c")), ('"say ""hi""", b', ('say "hi"', "b")),
    ('"two\nlines", b', ("two\nlines", "b")), ("a,,b", ("a", "", "b")), ("a\nb", ("a", "b")), ("", ()),
])
def test_texts_are_separated_as_in_csv(text, values):
    assert grid.split(text) == values
    assert grid.texts(text) == tuple(value for value in values if value)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1), min_size=1))
def test_what_is_joined_is_read_again(values):
    assert list(grid.split(grid.join(values))) == values


def test_truth_values_searched_texts_and_orders():
    assert grid.booleans("True, false") == (True, False)
    with pytest.raises(InvalidRequest, match="maybe"):
        grid.booleans("maybe")
    assert grid.replacements("cat, dog,") == (("cat", "cat"), ("cat", "dog"), ("cat", ""))
    with pytest.raises(InvalidRequest, match="first value"):
        grid.replacements(", dog")
    assert grid.orders("a, b, c") == (("a", "b", "c"), ("a", "c", "b"), ("b", "a", "c"), ("b", "c", "a"),
                                      ("c", "a", "b"), ("c", "b", "a"))
    with pytest.raises(InvalidRequest, match="8 values"):
        grid.orders("a, b, c, d, e, f, g, h")


def test_values_are_shown_without_the_noise_of_sums():
    assert [grid.written(value) for value in (0.1 + 0.2, 7.0, 3, True, ("a", "b"), "x")] == [
        "0.3", "7", "3", "True", "a, b", "x"]


def test_a_grid_is_wanted_once_something_varies():
    assert not Grid().wanted and not Grid("Nothing", "1").wanted and Grid(z_type="Seed").wanted
    with pytest.raises(InvalidRequest, match="margin_size"):
        grid.check_grid(Grid(margin_size=501))
