import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.prompts.styles import Style, apply, parse_styles, with_style, without_style


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


FILE = ('\ufeffname,prompt,negative_prompt,note\r\n# a comment, with "marks"\r\n'
        'Ink,"{prompt}, ink\nand wash",blur,mine\r\n'
        '\r\n--------,,\nOil, oil on canvas,')


def test_a_style_replaces_its_namesake_and_leaves_everything_else_as_it_was():
    changed = with_style(FILE, Style("Ink", '{prompt}, "black" ink', " soft"))
    assert changed == ('\ufeffname,prompt,negative_prompt,note\r\n# a comment, with "marks"\r\n'
                       '"Ink","{prompt}, ""black"" ink"," soft",""\n\r\n--------,,\nOil, oil on canvas,\n')
    assert Style("Ink", '{prompt}, "black" ink', " soft") in parse_styles(changed)


def test_a_new_style_comes_last_and_a_new_file_gets_its_header():
    assert with_style(FILE, Style("Film", "film", "")).endswith('Oil, oil on canvas,\n"Film","film","",""\n')
    assert with_style("", Style("Film", "film", "")) == 'name,prompt,negative_prompt\n"Film","film",""\n'


def test_an_old_file_gains_the_column_that_it_lacks():
    changed = with_style("name,text\nInk,ink\n", Style("Film", "film", "digital"))
    assert parse_styles(changed) == (Style("Ink", "ink", ""), Style("Film", "film", "digital"))


def test_a_style_is_removed_with_all_its_lines_and_nothing_else():
    assert without_style(FILE, "Ink") == FILE.replace('Ink,"{prompt}, ink\nand wash",blur,mine\r\n', "")
    assert without_style(FILE, "none") == FILE and without_style("", "x") == ""


@pytest.mark.parametrize("name", ["", " ", "# a", " a", "a\nb", "a\rb", "a\u2028b", "x" * 201])
def test_a_name_that_could_not_be_read_back_is_refused(name):
    with pytest.raises(InvalidRequest):
        with_style("", Style(name, "", ""))


def test_a_style_that_is_too_long_is_refused():
    with pytest.raises(InvalidRequest, match="100,000"):
        with_style("", Style("a", "x" * 100_001, ""))


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=30)
names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and not name.startswith("#"))
styles = st.builds(Style, names, texts, texts)


@given(st.lists(styles, max_size=6), st.sampled_from(["", "name,text\n", FILE]))
def test_whatever_is_saved_is_read_back_and_removed_again(saved, before):
    text = before
    for style in saved:
        text = with_style(text, style)
    read = {style.name: style for style in parse_styles(text.replace("\r\n", "\n"))}
    assert {style.name: style for style in saved}.items() <= read.items()
    for style in saved:
        text = without_style(text, style.name)
    left = {style.name for style in parse_styles(text)}
    assert left == {style.name for style in parse_styles(before)} - {style.name for style in saved}


@given(st.text())
def test_any_file_takes_a_style(text):
    assert Style("new", "a, b", "") in parse_styles(with_style(text, Style("new", "a, b", "")))
