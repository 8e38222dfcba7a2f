import pytest
import torch

from modules.core.settings import Settings, with_values
from modules.families import clip_text
from modules.families.clip_tokenizer import clip_tokenizer


def test_emphasis_modes_follow_their_formulas():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64) + 0.5
    weights = torch.tensor([[1, 1.1, 1, 0.5, 1], [1, 1, 1, 1, 1]], dtype=torch.float64)
    times = states * weights[..., None]
    for chunk in range(2):
        original = times[chunk] * (states[chunk].mean() / times[chunk].mean())
        torch.testing.assert_close(clip_text.emphasise(states, weights, "Original")[chunk], original)
    assert torch.equal(clip_text.emphasise(states, weights, "No norm"), times)
    assert torch.equal(clip_text.emphasise(states, weights, "Ignore"), states)
    assert torch.equal(clip_text.emphasise(states, weights, "None"), states)


def test_a_prompt_without_emphasis_is_exact_in_every_mode():
    states = torch.randn(1, 77, 8)
    for mode in ("Original", "No norm", "Ignore", "None"):
        assert torch.equal(clip_text.emphasise(states, torch.ones(1, 77), mode), states)


def test_none_takes_brackets_literally():
    tokenizer = clip_tokenizer()
    for emphasis, text in (("None", "(cat:1.3) BREAK"), ("Ignore", "cat")):
        settings = with_values(Settings(), {"emphasis": emphasis})
        prompt = "(cat:1.3) BREAK" if emphasis == "None" else "(cat:1.3)"
        first = clip_text.chunks(prompt, tokenizer, settings, 75, {})[0]
        ids = tokenizer.encode(text)
        assert first.tokens[1:len(ids) + 1] == tuple(ids)


def test_chunks_fit_the_encoder():
    tokenizer = clip_tokenizer()
    for size in (75, 30):
        pieces = clip_text.chunks("cat " * 80, tokenizer, Settings(), size, {})
        assert len(pieces) == -(-80 // size)
        assert {len(piece.tokens) for piece in pieces} == {size + 2}


@pytest.mark.parametrize("text", ["a my-Style cat", "a MY-STYLE cat"])
def test_learned_words_get_their_ids(text):
    tokenizer = clip_tokenizer()
    tokenize = clip_text.with_words(tokenizer.encode, {"my-style": (49408, 49409), "my": (50000,)})
    assert tokenize(text) == [*tokenizer.encode("a"), 49408, 49409, *tokenizer.encode("cat")]
    assert tokenize("mystyle mymy") == tokenizer.encode("mystyle mymy")
