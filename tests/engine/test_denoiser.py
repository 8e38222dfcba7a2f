"""Guided model calls: rows, groups, weights, counting, and exhausted memory."""

from __future__ import annotations

import pytest
import torch

from modules.core.plan import Picture
from modules.core.plan import Guidance
from modules.engine.conditioning import ConditioningCache, PicturePrompts, picture_prompts
from modules.engine.denoiser import Denoiser, Prompted
from modules.families.base import Conditioning, ModelInput
from modules.sampling.spaces import Space
from tests.engine.conftest import Recorder

SPACE = Space((0.1, 1.0, 10.0))


def prompted(*prompts: str, negative: str = "n", calls: int = 10, lengths: dict[str, int] | None = None) -> Prompted:
    items = [picture_prompts(Picture(index, prompt, negative, 0, 0), calls, False)
             for index, prompt in enumerate(prompts)]
    texts = {text for item in items for text in item.texts()}
    # A text's context says which text it is: its value is a number derived from its characters.
    return Prompted(items, {
        text: Conditioning(torch.full(((lengths or {}).get(text, 4), 1), value(text))) for text in texts
    })


def value(text: str) -> float:
    return float(sum(map(ord, text.strip())))


class Network:
    """A network whose output makes the denoised latent the value of its context."""

    def __init__(self, most_rows: int = 99, failures: int = 10**9) -> None:
        self.calls: list[ModelInput] = []
        self.most_rows, self.failures = most_rows, failures

    def __call__(self, inputs: ModelInput) -> torch.Tensor:
        if len(inputs.roles) > self.most_rows and self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.calls.append(inputs)
        wanted = inputs.context[:, 0, 0].reshape(-1, 1, 1, 1)
        noisy = inputs.x * (inputs.sigma**2 + 1) ** 0.5
        return (noisy - wanted) / inputs.sigma


def run(network: Network, item: Prompted, scale: float = 7.0, calls: int = 1) -> tuple[torch.Tensor, int]:
    freed: list[int] = []
    denoiser = Denoiser(network, SPACE, item, Guidance(scale), Recorder(), lambda: freed.append(1))
    x = torch.randn((len(item.prompts), 1, 2, 2), generator=torch.Generator().manual_seed(0))
    for _ in range(calls):
        denoised = denoiser(x, 2.0)
    assert denoiser.calls == calls
    return denoised.x0.mean((1, 2, 3)), len(freed)


def test_guidance_is_taken_per_picture() -> None:
    network = Network()
    result, _ = run(network, prompted("a", "b"), 7.0)
    expected = [value("n") + 7 * (value(text) - value("n")) for text in "ab"]
    assert result.tolist() == pytest.approx(expected, rel=1e-4)
    (call,) = network.calls
    assert call.roles == ("cond", "cond", "uncond", "uncond") and call.rows == (0, 1, 0, 1)


def test_and_sums_weighted_differences() -> None:
    result, _ = run(Network(), prompted("a :2 AND b :-0.5"), 3.0)
    expected = value("n") + 3 * (2 * (value("a") - value("n")) - 0.5 * (value("b") - value("n")))
    assert result.tolist() == pytest.approx([expected], rel=1e-4)


def test_scale_1_makes_no_rows_for_the_negative_prompt() -> None:
    network = Network()
    result, _ = run(network, prompted("a"), 1.0)
    assert network.calls[0].roles == ("cond",)
    assert result.tolist() == pytest.approx([value("a")], rel=1e-4)


def test_a_sampler_that_reads_the_negative_prediction_gets_it_at_scale_1() -> None:
    network = Network()
    item = prompted("a")
    result, _ = run(network, Prompted(item.prompts, item.encoded, always_uncond=True), 1.0)
    assert network.calls[0].roles == ("cond", "uncond")
    assert result.tolist() == pytest.approx([value("a")], rel=1e-4)


def test_contexts_of_other_lengths_go_in_calls_of_their_own_and_are_never_padded() -> None:
    network = Network()
    result, _ = run(network, prompted("a", "b", lengths={"b": 8}), 7.0)
    assert sorted(call.context.shape[:2] for call in network.calls) == [(1, 8), (3, 4)]
    expected = [value("n") + 7 * (value(text) - value("n")) for text in "ab"]
    assert result.tolist() == pytest.approx(expected, rel=1e-4)


def test_prompt_editing_follows_the_count_of_calls() -> None:
    network = Network()
    run(network, prompted("[a:b:0.5]", calls=10), 1.0, calls=10)
    seen = [round(call.context[0, 0, 0].item()) for call in network.calls]
    assert seen == [value("a")] * 6 + [value("b")] * 4
    assert [call.call for call in network.calls] == list(range(10))


def test_exhausted_memory_is_freed_and_the_rows_go_one_by_one_from_then_on() -> None:
    network = Network(most_rows=1)
    result, freed = run(network, prompted("a", "b"), 7.0, calls=2)
    assert freed == 1
    assert [call.roles for call in network.calls] == [("cond",), ("cond",), ("uncond",), ("uncond",)] * 2
    assert result.tolist() == pytest.approx([value("n") + 7 * (value(t) - value("n")) for t in "ab"], rel=1e-4)


def test_a_single_row_is_tried_once_more_after_freeing() -> None:
    network = Network(most_rows=0, failures=1)
    _, freed = run(network, prompted("a"), 1.0)
    assert freed == 1 and len(network.calls) == 1


def test_memory_that_never_suffices_is_an_error_after_one_retry() -> None:
    network = Network(most_rows=0)
    with pytest.raises(torch.OutOfMemoryError):
        run(network, prompted("a"), 7.0)
    assert network.calls == []


def test_the_cache_encodes_each_text_once_per_key_and_forgets_the_oldest() -> None:
    cache, seen = ConditioningCache(limit=2), []

    def encode(texts: list[str]) -> list[Conditioning]:
        seen.append(list(texts))
        return [Conditioning(torch.zeros(1, 1)) for _ in texts]

    cache.encode(["a", "b", "a"], "k", encode)
    cache.encode(["b"], "k", encode)
    cache.encode(["a"], "other", encode)
    cache.encode(["a"], "k", encode)
    assert seen == [["a", "b"], ["a"], ["a"]]


def test_tags_and_comments_are_not_said_to_the_model() -> None:
    item = picture_prompts(Picture(0, "a <lora:x:1> b # note", "", 0, 0), 4, False)
    assert isinstance(item, PicturePrompts)
    assert "lora" not in "".join(item.texts()) and "note" not in "".join(item.texts())
