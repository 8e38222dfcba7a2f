import pytest

from modules.families.clip_tokenizer import clip_tokenizer
from modules.web.tokens import count_tokens


def test_a_prompt_without_any_syntax_counts_its_tokens() -> None:
    text = "a photograph of an astronaut riding a horse"
    assert count_tokens(text) == (len(clip_tokenizer().encode(text)), 75)


@pytest.mark.parametrize(("prompt", "same_as"), [
    ("(a cat:1.3)", "a cat"), ("a cat <lora:x:1>", "a cat "), ("a cat AND a dog and a bird", " a dog and a bird"),
    ("a [cat:large brown dog:0.5]", "a large brown dog"),
])
def test_syntax_does_not_count_and_the_longest_text_does(prompt: str, same_as: str) -> None:
    assert count_tokens(prompt)[0] == len(clip_tokenizer().encode(same_as))


def test_room_grows_by_chunks_of_75() -> None:
    assert count_tokens("cat " * 76) == (76, 150)
    assert count_tokens("")[1] == 75
