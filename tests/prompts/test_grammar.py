import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.prompts.grammar import (
    BREAK,
    MAX_DEPTH,
    MAX_WEIGHT,
    Composed,
    Weighted,
    compose,
    parse_attention,
    strip_comments,
)

PROMPTS = st.text(alphabet="ab ,()[]:\\.15|\n-", max_size=60)


@pytest.mark.parametrize(("text", "expected"), [
    ("", [("", 1.0)]),
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("[less]", [("less", 1 / 1.1)]),
    ("((x))", [("x", 1.1 * 1.1)]),
    ("(x:1.3)", [("x", 1.3)]),
    ("(x: 1.3 )", [("x", 1.3)]),
    ("(x:-.5)", [("x", -0.5)]),
    ("(x:+2.)", [("x", 2.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("[unbalanced", [("unbalanced", 1 / 1.1)]),
    ("a) b] c", [("a) b] c", 1.0)]),
    (r"\(literal\]", [("(literal]", 1.0)]),
    (r"a\\b\c", [(r"a\bc", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", [
        ("a ", 1.0), ("house", 1.5730000000000004), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55),
        (", sun, ", 1.1), ("sky", 1.4641000000000006), (".", 1.1),
    ]),
    ("a:1.3) b", [("a:1.3) b", 1.0)]),
    ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
    ("(a:.)", [("a:.", 1.1)]),
    ("(a:b:2)", [("a:b", 2.0)]),
    ("[a:0.5]", [("a:0.5", 1 / 1.1)]),
    ("([crossed)]", [("crossed", 1.1 * (1 / 1.1))]),
    ("a BREAK b", [("a", 1.0), ("BREAK", -1), ("b", 1.0)]),
    ("BREAK", [("", 1.0), ("BREAK", -1), ("", 1.0)]),
    ("a BREAK BREAK b", [("a", 1.0), ("BREAK", -1), ("", 1.0), ("BREAK", -1), ("b", 1.0)]),
    ("BREAKFAST aBREAK", [("BREAKFAST aBREAK", 1.0)]),
    ("(a BREAK b)", [("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]),
    ("(a) BREAK (b)", [("a", 1.1), ("", 1.0), ("BREAK", -1), ("", 1.0), ("b", 1.1)]),
])
def test_attention_gives_the_known_pieces(text, expected):
    assert parse_attention(text) == tuple(Weighted(*pair) for pair in expected)


def test_a_break_is_its_own_entry():
    assert parse_attention("a BREAK b")[1] == BREAK
    assert BREAK not in parse_attention("(a BREAK b)")


@given(st.text(alphabet=st.characters(exclude_characters="()[]\\:"), max_size=80).filter(lambda s: "BREAK" not in s))
def test_text_without_specials_comes_back_as_it_is(text):
    assert parse_attention(text) == (Weighted(text, 1.0),)


@given(st.text(max_size=60))
def test_escaping_every_special_gives_the_text_back(text):
    text = text.replace("BREAK", "")
    escaped = "".join("\\" + character if character in "()[]\\" else character for character in text)
    assert "".join(piece.text for piece in parse_attention(escaped)) == text


@given(st.lists(st.one_of(st.sampled_from("(["), st.floats(-3, 3).map(lambda weight: round(weight, 3))), max_size=12))
def test_nested_weights_are_multiplied(brackets):
    text = "x"
    expected = 1.0
    for bracket in brackets:
        if bracket == "(":
            text, expected = f"({text})", expected * 1.1
        elif bracket == "[":
            text, expected = f"[{text}]", expected / 1.1
        else:
            text, expected = f"({text}:{bracket:.3f})", expected * bracket
    (piece,) = parse_attention(text)
    assert piece.text == "x"
    assert math.isclose(piece.weight, expected, rel_tol=1e-12, abs_tol=1e-300)


@given(PROMPTS)
def test_no_text_raises_and_neighbours_differ(text):
    pieces = parse_attention(text)
    assert pieces
    assert all(math.isfinite(piece.weight) for piece in pieces)
    assert all(one.weight != other.weight for one, other in zip(pieces, pieces[1:], strict=False))


@pytest.mark.parametrize("text", [f"(x:{'9' * 400})", f"({'(' * 50}x{':9e0)' * 0}{f':{10**9})' * 50}:0)"])
def test_weights_stay_finite(text):
    assert all(abs(piece.weight) <= MAX_WEIGHT for piece in parse_attention(text))


def test_zero_times_a_weight_beyond_range_is_zero():
    text = "x"
    for _ in range(40):
        text = f"({text}:1000000000)"
    assert parse_attention(f"({text}:0)") == (Weighted("x", 0.0),)


def test_brackets_that_are_too_deep_are_text():
    pieces = parse_attention("(" * (MAX_DEPTH + 3) + "x")
    assert [piece.text for piece in pieces] == ["(((x"]
    assert math.isclose(pieces[0].weight, 1.1**MAX_DEPTH, rel_tol=1e-12)


@pytest.mark.parametrize("text", [
    *(unit * (200_000 // len(unit)) for unit in ("(", "[", ")", "]", "(a", "[(a", "(a)b", "(a:1.1)", ":", "\\",
                                                 "BREAK ", "a)(", "(a BREAK ", ":1", ":(", "[(])")),
    "(" * MAX_DEPTH + "[" * MAX_DEPTH + "(a)b" * 25_000,
    "a" + " " * 200_000 + "b",
    "(a:" + " " * 200_000 + "b",
    "(a:" + "1" * 200_000 + "b",
], ids=lambda text: text[:9])
def test_very_long_text_is_parsed(text):
    assert sum(len(piece.text) for piece in parse_attention(text)) <= len(text)


@pytest.mark.parametrize(("text", "expected"), [
    ("", [("", 1.0)]),
    ("a cat", [("a cat", 1.0)]),
    ("a cat AND a dog", [("a cat", 1.0), (" a dog", 1.0)]),
    ("a cat :1.2 AND a dog : -0.5", [("a cat", 1.2), (" a dog", -0.5)]),
    ("a:+.5AND b", [("a:+.5AND b", 1.0)]),
    ("a:+.5 AND b", [("a", 0.5), (" b", 1.0)]),
    ("a :2. AND", [("a", 2.0), ("", 1.0)]),
    ("a:1:2", [("a:1", 2.0)]),
    ("a:b", [("a:b", 1.0)]),
    ("a :", [("a :", 1.0)]),
    ("(a:1.2)", [("(a:1.2)", 1.0)]),
    ("BRAND ANDY and", [("BRAND ANDY and", 1.0)]),
    ("a\nb AND\nc:2\n", [("a\nb", 1.0), ("\nc", 2.0)]),
])
def test_compose_splits_at_and(text, expected):
    assert compose(text) == tuple(Composed(*pair) for pair in expected)


@given(st.lists(st.tuples(st.sampled_from(["cat", " dog", "a b"]), st.floats(-9, 9)), min_size=1, max_size=5))
def test_composed_weights_are_read_back(parts):
    text = " AND ".join(f"{text}:{weight:.2f}" for text, weight in parts)
    assert [part.weight for part in compose(text)] == [float(f"{weight:.2f}") for _, weight in parts]


@given(st.text(alphabet="AND :.1-\n", max_size=60))
def test_composing_never_raises(text):
    assert all(math.isfinite(part.weight) for part in compose(text))


@pytest.mark.parametrize("text", [" " * 200_000 + "x", ":" * 200_000, "AND " * 50_000, ":" + "1" * 200_000 + "x"])
def test_composing_very_long_text(text):
    assert sum(len(part.text) for part in compose(text)) <= len(text)


@pytest.mark.parametrize(("text", "expected"), [
    ("a cat", "a cat"),
    ("a cat # really", "a cat \n"),
    ("a # b\nc", "a \nc"),
    ("a\n# b\nc", "a\nc"),
    ("# a\nb", "\nb"),
    ("a#b#c", "a\n"),
])
def test_comments_end_with_their_line(text, expected):
    assert strip_comments(text) == expected


@given(st.text(alphabet="a#\n ", max_size=60))
def test_no_comment_is_left(text):
    assert "#" not in strip_comments(text)
