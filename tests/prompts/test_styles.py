import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.prompts.styles import Style, apply, parse_styles


@pytest.mark.parametrize(("prompt", "styles", "expected"), [
    ("a cat", (), "a cat"),
    ("a cat", ("oil painting",), "a cat, oil painting"),
    (" a cat ", (" oil ",), "a cat, oil"),
    ("", ("oil",), "oil"),
    ("a cat", ("",), "a cat"),
    ("a cat", ("oil of {prompt}, fine",), "oil of a cat, fine"),
    ("a cat", ("x", "[{prompt}] {prompt}"), "[a cat, x] a cat, x"),
])
def test_styles_are_applied_in_order(prompt, styles, expected):
    assert apply(prompt, styles) == expected


def test_styles_that_grow_without_end_are_refused():
    with pytest.raises(InvalidRequest, match="200,000"):
        apply("a cat", ["{prompt}{prompt}"] * 64)


@pytest.mark.parametrize(("text", "expected"), [
    ("", ()),
    ("name,prompt,negative_prompt\n", ()),
    ("\ufeffname,prompt,negative_prompt\nOil,\"oil, thick\",photo\n", (Style("Oil", "oil, thick", "photo"),)),
    ("name,text\nOil,oil\n", (Style("Oil", "oil", ""),)),
    ("name,prompt,negative_prompt\nA,a\n\n# note,x,y\nB, \"b \"\"q\"\"\",n,extra\nA,c,d\n",
     (Style("A", "c", "d"), Style("B", 'b "q"', "n"))),
    ("name,prompt,negative_prompt\nA,\"two\nlines\",\n", (Style("A", "two\nlines", ""),)),
    ("nonsense", ()),
])
def test_styles_files_are_read(text, expected):
    assert parse_styles(text) == expected


def test_a_row_that_is_no_csv_is_skipped():
    huge = "x" * (csv.field_size_limit() + 10)
    assert parse_styles(f"name,prompt,negative_prompt\nA,{huge},\nB,b,\n")[-1] == Style("B", "b", "")


@given(st.text(max_size=80))
def test_no_text_raises(text):
    parse_styles(text)
    parse_styles("name,prompt,negative_prompt\n" + text)


CELL = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12).map(str.strip)


@given(st.dictionaries(CELL.filter(lambda name: name and not name.startswith("#")), st.tuples(CELL, CELL), max_size=4))
def test_what_is_written_is_read_back(styles):
    file = io.StringIO(newline="")
    rows = [[name, *texts] for name, texts in styles.items()]
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["name", "prompt", "negative_prompt"], *rows])
    assert [[style.name, style.prompt, style.negative_prompt] for style in parse_styles(file.getvalue())] == rows
