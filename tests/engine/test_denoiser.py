"""Guided model calls: rows, roles, groups, counting, and exhausted memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modules.core.errors import InvalidRequest
from modules.core.guidance import Guidance, Perturbation, Projection, ZeroStar
from modules.core.plan import Picture
from modules.core.settings import Settings
from modules.engine.conditioning import ConditioningCache, PicturePrompts, picture_prompts
from modules.engine.denoiser import Denoiser, Prompted
from modules.families import detect
from modules.families.base import Conditioning, ModelInput
from modules.library.headers import read_header
from modules.runtime.device import Placement
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import Space
from tests.engine.conftest import Recorder

SPACE = Space((0.1, 1.0, 10.0))


def prompted(
    *prompts: str, negative: str = "n", calls: int = 10, lengths: dict[str, int] | None = None, **more: Any
) -> Prompted:
    items = [picture_prompts(Picture(index, prompt, negative, 0, 0), calls, False)
             for index, prompt in enumerate(prompts)]
    positive = {stage.text for item in items for part in item.parts for stage in part.stages}
    said = {(text, False) for text in positive} | {(stage.text, True) for item in items for stage in item.negative}
    # A text's context says which text it is: its value is a number derived from its characters.
    return Prompted(items, {
        (text, isnt): Conditioning(torch.full(((lengths or {}).get(text, 4), 1), value(text))) for text, isnt in said
    }, calls, **more)


def value(text: str) -> float:
    return float(sum(map(ord, text.strip())))


class Network:
    """A network whose output makes the denoised latent the value of its context."""

    def __init__(self, most_rows: int = 99, failures: int = 10**9) -> None:
        self.calls: list[ModelInput] = []
        self.freed: list[int] = []
        self.most_rows, self.failures = most_rows, failures

    def __call__(self, inputs: ModelInput) -> torch.Tensor:
        if len(inputs.roles) > self.most_rows and self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.calls.append(inputs)
        for hook in (hook for hooks in inputs.attention.values() for hook in hooks):
            hook.met.update({"mid"})
        wanted = inputs.context[:, 0, 0].reshape(-1, 1, 1, 1)
        noisy = inputs.x * (inputs.sigma**2 + 1) ** 0.5
        return (noisy - wanted) / inputs.sigma


def made(
    network: Network, item: Prompted, guided: Guidance | float = 7.0, first_call: int = 0, **settings: Any
) -> Denoiser:
    guided = guided if isinstance(guided, Guidance) else Guidance(guided)
    freed = network.freed
    return Denoiser(network, SPACE, item, guided, Recorder(), lambda: freed.append(1), Settings(**settings), first_call)


def start(pictures: int) -> torch.Tensor:
    return torch.randn((pictures, 1, 2, 2), generator=torch.Generator().manual_seed(0))


def run(network: Network, item: Prompted, guided: Guidance | float = 7.0, calls: int = 1) -> torch.Tensor:
    denoiser = made(network, item, guided)
    for _ in range(calls):
        denoised = denoiser(start(len(item.prompts)), 2.0)
    assert denoiser.calls == calls
    return denoised.x0.mean((1, 2, 3))


def roles(network: Network) -> list[tuple[str, ...]]:
    return [call.roles for call in network.calls]


def test_guidance_is_taken_per_picture() -> None:
    network = Network()
    result = run(network, prompted("a", "b"), 7.0)
    expected = [value("n") + 7 * (value(text) - value("n")) for text in "ab"]
    assert result.tolist() == pytest.approx(expected, rel=1e-4)
    (call,) = network.calls
    assert call.roles == ("cond", "cond", "uncond", "uncond") and call.rows == (0, 1, 0, 1)


def test_and_sums_weighted_differences() -> None:
    result = run(Network(), prompted("a :2 AND b :-0.5"), 3.0)
    expected = value("n") + 3 * (2 * (value("a") - value("n")) - 0.5 * (value("b") - value("n")))
    assert result.tolist() == pytest.approx([expected], rel=1e-4)


def test_scale_1_makes_no_rows_for_the_negative_prompt() -> None:
    network = Network()
    result = run(network, prompted("a"), 1.0)
    assert network.calls[0].roles == ("cond",)
    assert result.tolist() == pytest.approx([value("a")], rel=1e-4)


def test_a_sampler_that_reads_the_negative_prediction_gets_it_at_scale_1() -> None:
    network = Network()
    result = run(network, prompted("a", always_uncond=True), 1.0)
    assert network.calls[0].roles == ("cond", "uncond")
    assert result.tolist() == pytest.approx([value("a")], rel=1e-4)


def test_contexts_of_other_lengths_go_in_calls_of_their_own_and_are_never_padded() -> None:
    network = Network()
    result = run(network, prompted("a", "b", lengths={"b": 8}), 7.0)
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
    result = run(network, prompted("a", "b"), 7.0, calls=2)
    assert len(network.freed) == 1
    assert roles(network) == [("cond",), ("cond",), ("uncond",), ("uncond",)] * 2
    assert result.tolist() == pytest.approx([value("n") + 7 * (value(t) - value("n")) for t in "ab"], rel=1e-4)


def test_a_single_row_is_tried_once_more_after_freeing() -> None:
    network = Network(most_rows=0, failures=1)
    run(network, prompted("a"), 1.0)
    assert len(network.freed) == 1 and len(network.calls) == 1


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


def test_calls_are_counted_on_from_the_segment_before() -> None:
    network = Network()
    denoiser = made(network, prompted("[a:b:0.5]", calls=10), 1.0, first_call=6)
    denoiser(start(1), 2.0)
    assert network.calls[0].call == 6 and denoiser.calls == 7
    assert network.calls[0].context[0, 0, 0].item() == value("b")


@pytest.mark.parametrize(("settings", "without"), [
    ({"s_min_uncond": 3.0}, [3, 5]), ({"s_min_uncond": 3.0, "s_min_uncond_all": True}, [2, 3, 4, 5]),
    ({"s_min_uncond": 0.0}, []), ({"skip_early_cond": 0.3}, [0, 1]), ({"skip_early_cond": 0.5}, [0, 1, 2, 3]),
    ({"skip_early_cond": 0.1, "s_min_uncond": 1.0}, [0, 5]),
])
def test_settings_leave_the_negative_prompt_out_in_the_calls_that_a1111_does(
    settings: dict[str, Any], without: list[int]
) -> None:
    network = Network()
    denoiser = made(network, prompted("a", calls=6), 7.0, **settings)
    results = [denoiser(start(1), sigma).x0.mean().item() for sigma in (9.0, 6.0, 2.9, 2.0, 1.0, 0.5)]
    assert [call.call for call in network.calls if call.roles == ("cond",)] == without
    guided = value("n") + 7 * (value("a") - value("n"))
    expected = [value("a") if call in without else guided for call in range(6)]
    assert results == pytest.approx(expected, rel=1e-4)


def test_the_early_share_is_compared_as_a1111_does() -> None:
    network = Network()
    denoiser = made(network, prompted("a", calls=100), 7.0, first_call=29, skip_early_cond=0.29)
    for _ in range(2):
        denoiser(start(1), 2.0)
    assert roles(network) == [("cond",), ("cond", "uncond")]


def test_where_it_is_left_out_the_first_part_stands_in_for_it() -> None:
    network = Network()
    denoised = made(network, prompted("a AND b :0.5", always_uncond=True), 3.0, skip_early_cond=1.0)(start(1), 2.0)
    assert denoised.x0.mean().item() == pytest.approx(value("a") + 3 * 0.5 * (value("b") - value("a")), rel=1e-4)
    assert denoised.uncond.mean().item() == pytest.approx(value("a"), rel=1e-4)


def test_the_two_prompts_go_in_calls_of_their_own_where_the_setting_says_so() -> None:
    network = Network()
    denoised = made(network, prompted("a", "b"), 7.0, batch_cond_uncond=False)(start(2), 2.0)
    assert roles(network) == [("cond", "cond"), ("uncond", "uncond")]
    together = made(Network(), prompted("a", "b"), 7.0)(start(2), 2.0)
    torch.testing.assert_close(denoised.x0, together.x0)


def test_each_row_is_told_its_roles_numbers_and_its_own_extras() -> None:
    network = Network()
    item = prompted("a", "b", micro={"cond": (64.0, 64.0, 6.0), "uncond": (64.0, 64.0, 2.5)})
    extras = {key: dataclasses.replace(found, pooled=found.context[0], added={"mask": found.context[:, 0]})
              for key, found in item.encoded.items()}
    run(network, dataclasses.replace(item, encoded=extras))
    (call,) = network.calls
    assert call.added["micro"].tolist() == [[64, 64, 6]] * 2 + [[64, 64, 2.5]] * 2
    assert call.pooled.flatten().tolist() == call.added["mask"][:, 3].tolist() == [value(t) for t in "abnn"]


def test_the_same_text_may_be_encoded_otherwise_as_a_negative_prompt() -> None:
    network = Network()
    item = prompted("x", negative="x")
    encoded = {**item.encoded, ("x", True): Conditioning(torch.zeros(4, 1))}
    result = run(network, dataclasses.replace(item, encoded=encoded), 3.0)
    assert result.item() == pytest.approx(3 * value("x"), rel=1e-4)


@pytest.mark.parametrize("pictures", [1, 2])
def test_further_channels_follow_each_rows_picture(pictures: int) -> None:
    network = Network()
    concat = torch.arange(pictures).float().reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 1
    run(network, prompted("a", "b", concat=concat, takes="inpaint"))
    expected = [1, 2, 1, 2] if pictures == 2 else [1, 1, 1, 1]
    assert network.calls[0].concat.shape == (4, 3, 2, 2)
    assert network.calls[0].concat[:, 2, 1, 1].tolist() == expected


def edited(network: Network, scale: float, image_scale: float, **settings: Any) -> Denoised:
    item = prompted("a", concat=torch.full((1, 1, 2, 2), 1000.0), takes="edit")
    return made(network, item, Guidance(scale, image_scale), **settings)(start(1), 2.0)


class Editor(Network):
    """Adds what it sees of the picture to the denoised latent."""

    def __call__(self, inputs: ModelInput) -> torch.Tensor:
        assert inputs.concat is not None
        return super().__call__(inputs) - inputs.concat / inputs.sigma


def test_a_model_that_edits_is_guided_by_text_and_picture() -> None:
    network = Editor()
    denoised = edited(network, 7.0, 1.5)
    (call,) = network.calls
    assert call.roles == ("cond", "image_uncond", "uncond")
    assert call.context[:, 0, 0].tolist() == [value("a"), value("n"), value("n")]
    assert call.concat.flatten(1)[:, 0].tolist() == [1000, 1000, 0]
    # Brooks et al. 2023, equation 3, with e(z, image, text).
    both, image, neither = value("a") + 1000, value("n") + 1000, value("n")
    expected = neither + 1.5 * (image - neither) + 7 * (both - image)
    assert denoised.x0.mean().item() == pytest.approx(expected, rel=1e-4)
    assert denoised.uncond.mean().item() == pytest.approx(neither, rel=1e-4)


def test_an_image_scale_of_1_needs_no_row_without_the_picture() -> None:
    network = Editor()
    denoised = edited(network, 7.0, 1.0)
    assert roles(network) == [("cond", "image_uncond")]
    expected = value("n") + 1000 + 7 * (value("a") - value("n"))
    assert denoised.x0.mean().item() == pytest.approx(expected, rel=1e-4)
    network = Editor()
    edited(network, 1.0, 1.0)
    assert roles(network) == [("cond",)]


def test_a_model_that_edits_keeps_its_negative_rows_below_the_minimum_sigma() -> None:
    network = Editor()
    edited(network, 7.0, 1.5, s_min_uncond=9.0, s_min_uncond_all=True)
    assert len(network.calls[0].roles) == 3


def test_disturbed_rows_are_run_only_while_they_take_part() -> None:
    network = Network()
    guided = Guidance(7.0, perturbed=Perturbation(2.0, start=0.2, end=0.6), skipped=Perturbation(1.0, end=0.4))
    denoiser = made(network, prompted("a :2 AND b", calls=5), guided)
    for _ in range(5):
        denoiser(start(1), 2.0)
    cond, two = ("cond", "cond", "uncond"), ("skipped", "skipped")
    worse = ("perturbed", "perturbed")
    assert roles(network) == [cond + two, cond + worse + two, cond + worse, cond, cond]
    assert [sorted(call.attention) for call in network.calls] == [["block"], ["attn1", "block"], ["attn1"], [], []]
    assert [call.call for call in network.calls] == list(range(5))


def test_scale_1_with_a_disturbed_row_still_makes_none_for_the_negative_prompt() -> None:
    network = Network()
    run(network, prompted("a"), Guidance(1.0, perturbed=Perturbation(2.0), rescale=0.5), calls=2)
    assert roles(network) == [("cond", "perturbed")] * 2


def test_a_layer_that_the_model_lacks_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"no layer up\.9 "):
        run(Network(), prompted("a"), Guidance(7.0, perturbed=Perturbation(2.0, ("mid", "up.9"))))


def test_calls_of_the_zero_start_are_counted_but_not_made() -> None:
    network = Network()
    denoiser = made(network, prompted("a"), Guidance(7.0, zero_star=ZeroStar(2)))
    x = start(1)
    denoised = [denoiser(x, 2.0) for _ in range(3)]
    assert [call.call for call in network.calls] == [2]
    # A prediction of no noise says that the latent is clean already.
    assert torch.equal(denoised[0].x0, x) and torch.equal(denoised[1].x0, x) and not torch.equal(denoised[2].x0, x)


class Operations(TorchDispatchMode):
    """Counts operations by name, and remembers how many tensors each call leaves alive."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


SYNCHRONISING = ("_local_scalar_dense", "_to_copy", "nonzero", "is_nonzero", "equal", "item")
EVERYTHING = Guidance(
    7.0, rescale=0.5, projection=Projection(0.0, 5.0, -0.5), zero_star=ZeroStar(),
    perturbed=Perturbation(1.0), smoothed=Perturbation(1.0), skipped=Perturbation(1.0),
)


@pytest.mark.parametrize("guided", [Guidance(7.0), EVERYTHING], ids=["plain", "everything"])
def test_no_call_waits_for_the_device_or_does_more_than_the_one_before(guided: Guidance) -> None:
    denoiser = made(Network(), prompted("a", "b AND c", micro={"cond": (1.0,), "uncond": (2.0,)}), guided)
    x, counts = start(2), []
    for sigma in (9.0, 5.0, 2.0, 1.0, 0.5):
        with Operations() as seen:
            denoiser(x, sigma)
        counts.append(seen.counts)
    assert not any(set(SYNCHRONISING) & set(found) for found in counts[1:])
    # The first call stacks the contexts and has no momentum yet; from the third on all are alike.
    assert counts[2] == counts[3] == counts[4]
    assert sum(counts[4].values()) <= sum(counts[0].values())


def test_nor_does_a_whole_network_with_disturbed_rows(checkpoint: Path) -> None:
    family, variant = detect(read_header(checkpoint))
    model: Any = family.load(variant, str(checkpoint), None, Placement())
    item = prompted("a", "b")
    encoded = {key: Conditioning(torch.full((77, 32), found.context[0, 0].item() / 100))
               for key, found in item.encoded.items()}
    denoiser = Denoiser(lambda inputs: family.call(model, inputs), family.space(model),
                        dataclasses.replace(item, encoded=encoded), EVERYTHING, Recorder(), list, Settings())
    x, counts = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)), []
    for sigma in (9.0, 5.0, 2.0, 1.0):
        with Operations() as seen:
            assert denoiser(x, sigma).x0.isfinite().all()
        counts.append(seen.counts)
    assert not any({"nonzero", "_to_copy"} & set(found) for found in counts[1:])
    # The one value that is read is the assertion's.
    assert all(found["_local_scalar_dense"] == 1 for found in counts) and counts[2] == counts[3]


def test_what_rows_are_told_is_stacked_once_and_not_kept_for_texts_of_the_past() -> None:
    network = Network()
    run(network, prompted("[a:b:0.5]", calls=10), 7.0, calls=10)
    contexts = [call.context for call in network.calls]
    assert all(one is contexts[0] for one in contexts[:6]) and all(one is contexts[6] for one in contexts[6:])
    denoiser = made(network, prompted("[a|b|c]", calls=9), 7.0)
    for _ in range(9):
        denoiser(start(1), 2.0)
    assert len(denoiser._told) == 1


def test_tags_and_comments_are_not_said_to_the_model() -> None:
    item = picture_prompts(Picture(0, "a <lora:x:1> b # note", "", 0, 0), 4, False)
    assert isinstance(item, PicturePrompts)
    assert "lora" not in "".join(item.texts()) and "note" not in "".join(item.texts())
