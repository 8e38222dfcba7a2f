import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.prompts.tags import Tag, extract


@pytest.mark.parametrize(("prompt", "text", "tags"), [
    ("a cat", "a cat", ()),
    ("a <lora:x:0.8> cat", "a  cat", (Tag("lora", ("x", "0.8")),)),
    ("<lora:x><hypernet:y:1:2>", "", (Tag("lora", ("x",)), Tag("hypernet", ("y", "1", "2")))),
    ("<lora:a/b c.v1:te=0.5:unet=1>", "", (Tag("lora", ("a/b c.v1", "te=0.5", "unet=1")),)),
    ("<lora:>", "<lora:>", ()),
    ("<lora>", "<lora>", ()),
    ("a < b > c", "a < b > c", ()),
    ("<a<lora:x>", "<a", (Tag("lora", ("x",)),)),
    ("<lora:x <lora:y>", "", (Tag("lora", ("x <lora", "y")),)),
    ("<lora:x", "<lora:x", ()),
])
def test_tags_are_taken_out(prompt, text, tags):
    assert extract(prompt) == (text, tags)


def test_arguments_are_positional_or_named():
    tag = Tag("lora", ("x", "te=0.5", "0.8", "a=b=c", "te=0.7"))
    assert tag.positional == ("x", "0.8", "a=b=c")
    assert tag.named == {"te": "0.7"}


@given(st.from_regex(r"<\w+:[^>]+>", fullmatch=True))
def test_a_tag_becomes_its_text_again(text):
    rest, (tag,) = extract(text)
    assert (rest, str(tag)) == ("", text)


@given(st.text(alphabet="<>:=ab ", max_size=60))
def test_no_text_raises(prompt):
    text, tags = extract(prompt)
    assert len(text) + sum(len(str(tag)) for tag in tags) == len(prompt)


@pytest.mark.parametrize("unit", ["<", "<a:", "<a", "<a:b>", ">", "<a:>"])
def test_very_long_text(unit):
    prompt = unit * (200_000 // len(unit))
    text, tags = extract(prompt)
    assert len(text) + sum(len(str(tag)) for tag in tags) == len(prompt)
