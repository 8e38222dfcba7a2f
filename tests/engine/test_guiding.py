"""How predictions are combined, against diffusers' guiders on the same network outputs and formulas in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    PerturbedAttentionGuidance,
)

from modules.core.guidance import Guidance, Mimicry, Perturbation, Projection, Thresholding, ZeroStar
from modules.engine.guiding import Guider, Predictions
from modules.engine.rows import Row
from modules.sampling.spaces import Space, flow_space, space_from_betas

SPACES = {name: space_from_betas(prediction=name) for name in ("epsilon", "v_prediction")} | {"flow": flow_space(3.0)}
SIGMA = 0.7
SHAPE = (2, 4, 6, 5)


def drawn(seed: int) -> torch.Tensor:
    """Return something like a prediction, not centred, each picture at a scale of its own."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise + 0.3) * torch.tensor([1.0, 0.4]).reshape(2, 1, 1, 1)


def outputs(seed: int, *roles: str) -> dict[str, torch.Tensor]:
    """Return the network's outputs by role, which have much in common as those of one latent do."""
    common = drawn(seed)
    return {role: common + 0.4 * drawn(100 * (index + 1) + seed) for index, role in enumerate(roles)}


def predictions(space: Space, raw: dict[str, torch.Tensor], weights: Sequence[float] = (1.0,)) -> Predictions:
    """Return ``raw`` as clean latents; ``weights`` are those of the roles cond, cond2, and so on."""
    x, rows, x0 = drawn(99), [], []
    for name, output in raw.items():
        role = name.rstrip("2")
        weight = weights[1] if name.endswith("2") else weights[0] if role == "cond" else 1.0
        for picture in range(len(x)):
            rows.append(Row(picture, role, weight, ""))
            x0.append(space.denoised(x[picture], output[picture], SIGMA))
    return Predictions(x, SIGMA, rows, x0)


def output(space: Space, x0: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(space.output(drawn(99), x0, SIGMA))


def close(ours: torch.Tensor, theirs: Any) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-6, atol=1e-6)


def combined(guider: Any, *given: torch.Tensor) -> torch.Tensor:
    guider.set_state(step=1, num_inference_steps=10, timestep=torch.tensor(500))
    return torch.as_tensor(guider.forward(*given).pred)


@pytest.mark.parametrize("prediction", SPACES)
@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_rescaled_guidance_is_diffusers_on_what_the_network_predicts(prediction: str, share: float) -> None:
    raw, space = outputs(0, "cond", "uncond"), SPACES[prediction]
    denoised = Guider(Guidance(7.5, rescale=share), space)(predictions(space, raw))
    theirs = combined(ClassifierFreeGuidance(7.5, guidance_rescale=share), raw["cond"], raw["uncond"])
    close(output(space, denoised.x0), theirs)
    close(output(space, denoised.uncond), raw["uncond"])


@pytest.mark.parametrize("prediction", SPACES)
def test_cfg_zero_star_is_diffusers_on_what_the_network_predicts(prediction: str) -> None:
    raw, space = outputs(1, "cond", "uncond"), SPACES[prediction]
    denoised = Guider(Guidance(5.0, zero_star=ZeroStar()), space)(predictions(space, raw))
    theirs = combined(ClassifierFreeZeroStarGuidance(5.0, zero_init_steps=0), raw["cond"], raw["uncond"])
    close(output(space, denoised.x0), theirs)


def test_projected_guidance_is_diffusers_on_clean_latents_over_a_run() -> None:
    space = SPACES["epsilon"]
    guider = Guider(Guidance(9.0, projection=Projection(0.2, 4.0, -0.5)), space)
    # The original formulation counts the scale from the conditional prediction on.
    theirs = AdaptiveProjectedGuidance(9.0 - 1, adaptive_projected_guidance_momentum=-0.5, eta=0.2,
                                       adaptive_projected_guidance_rescale=4.0, use_original_formulation=True)
    for call in range(4):
        made = predictions(space, outputs(call, "cond", "uncond"))
        cond, uncond = torch.stack(list(made.x0[:2])), torch.stack(list(made.x0[2:]))
        theirs.set_state(step=call, num_inference_steps=10, timestep=torch.tensor(500))
        theirs.prepare_inputs({"hidden_states": (cond, uncond)})  # begins the momentum in the first call
        close(guider(made).x0, theirs.forward(cond, uncond).pred)


@pytest.mark.parametrize("prediction", SPACES)
def test_a_perturbed_prediction_is_taken_away_as_diffusers_does(prediction: str) -> None:
    raw, space = outputs(2, "cond", "uncond", "perturbed"), SPACES[prediction]
    guided = Guidance(6.0, rescale=0.4, perturbed=Perturbation(2.5))
    theirs = PerturbedAttentionGuidance(6.0, perturbed_guidance_scale=2.5, perturbed_guidance_layers=[0],
                                        perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0,
                                        guidance_rescale=0.4)
    expected = combined(theirs, raw["cond"], raw["uncond"], raw["perturbed"])
    close(output(space, Guider(guided, space)(predictions(space, raw)).x0), expected)


def test_perturbations_add_up_each_with_its_scale_and_the_weights_of_the_parts() -> None:
    space = SPACES["epsilon"]
    raw = outputs(3, "cond", "cond2", "uncond", "smoothed", "smoothed2", "skipped", "skipped2")
    guided = Guidance(4.0, smoothed=Perturbation(3.0), skipped=Perturbation(0.5))
    made = predictions(space, raw, (1.0, -0.5))
    rows = [Row(row.picture, row.role, -0.5 if index % 4 >= 2 and row.role != "uncond" else 1.0, "")
            for index, row in enumerate([*made.rows[:4], *made.rows[6:]])]
    made = Predictions(made.x, SIGMA, [*rows[:4], *made.rows[4:6], *rows[4:]], made.x0)
    plain = sum(weight * (raw[name] - raw["uncond"]) for name, weight in (("cond", 1.0), ("cond2", -0.5)))
    shifts = sum(scale * weight * (raw[f"cond{n}"] - raw[f"{role}{n}"])
                 for role, scale in (("smoothed", 3.0), ("skipped", 0.5)) for n, weight in (("", 1.0), ("2", -0.5)))
    close(output(space, Guider(guided, space)(made).x0), raw["uncond"] + 4.0 * plain + shifts)


def test_parts_joined_by_and_are_projected_as_one_prompt() -> None:
    space = SPACES["epsilon"]
    raw = outputs(4, "cond", "cond2", "uncond")
    together = Guider(Guidance(5.0, projection=Projection(eta=1.0)), space)(predictions(space, raw, (0.75, 0.5)))
    plain = Guider(Guidance(5.0), space)(predictions(space, raw, (0.75, 0.5)))
    close(together.x0, plain.x0)
    joined = raw["uncond"] + 0.75 * (raw["cond"] - raw["uncond"]) + 0.5 * (raw["cond2"] - raw["uncond"])
    projection = Projection(0.0, 3.0)
    ours = Guider(Guidance(5.0, projection=projection), space)(predictions(space, raw, (0.75, 0.5)))
    single = Guider(Guidance(5.0, projection=projection), space)(
        predictions(space, {"cond": joined, "uncond": raw["uncond"]}))
    close(ours.x0, single.x0)


@pytest.mark.parametrize("percentile", [1.0, 0.9])
def test_mimicry_by_its_formula(percentile: float) -> None:
    space, raw = SPACES["epsilon"], outputs(5, "cond", "uncond")
    ours = Guider(Guidance(20.0, mimicry=Mimicry(6.0, percentile)), space)(predictions(space, raw)).x0.numpy()
    cond, uncond = (space.denoised(drawn(99), raw[role], SIGMA).numpy() for role in ("cond", "uncond"))
    for picture, channel in np.ndindex(2, 4):
        full, mimic = (uncond[picture, channel] + scale * (cond - uncond)[picture, channel] for scale in (20.0, 6.0))
        wanted = np.abs(mimic - mimic.mean()).max()
        cut = max(np.quantile(np.abs(full - full.mean()), percentile), wanted)
        expected = np.clip(full - full.mean(), -cut, cut) / cut * wanted + full.mean()
        np.testing.assert_allclose(ours[picture, channel], expected, rtol=1e-6, atol=1e-6)


def test_thresholds_hold_for_what_guidance_gives_in_the_end() -> None:
    space, raw = SPACES["epsilon"], outputs(6, "cond", "uncond", "perturbed")
    made = predictions(space, raw)
    guided = {"scale": 12.0, "rescale": 0.2, "perturbed": Perturbation(2.0)}
    free = Guider(Guidance(**guided), space)(made).x0
    static = Guider(Guidance(**guided, thresholding=Thresholding(2.0)), space)(made).x0
    close(static, free.clamp(-2, 2))
    dynamic = Guider(Guidance(**guided, thresholding=Thresholding(2.0, 0.9)), space)(made).x0
    for ours, latent in zip(dynamic.numpy(), free.numpy(), strict=True):
        cut = max(2.0, np.quantile(np.abs(latent), 0.9))
        np.testing.assert_allclose(ours, np.clip(latent, -cut, cut) / cut * 2.0, rtol=1e-6, atol=1e-6)


def test_plain_guidance_of_one_prompt_is_exactly_the_formula() -> None:
    space, raw = SPACES["epsilon"], outputs(7, "cond", "uncond")
    made = predictions(space, raw)
    cond, uncond = torch.stack(list(made.x0[:2])), torch.stack(list(made.x0[2:]))
    assert torch.equal(Guider(Guidance(7.0), space)(made).x0, uncond + (cond - uncond) * 7.0)
    assert torch.equal(Guider(Guidance(1.0), space)(predictions(space, {"cond": raw["cond"]})).x0, cond)


@pytest.mark.parametrize("guided", [
    Guidance(7.0, rescale=0.7), Guidance(7.0, projection=Projection(0.1, 2.0)), Guidance(7.0, zero_star=ZeroStar()),
    Guidance(7.0, mimicry=Mimicry(5.0, 0.95)), Guidance(7.0, thresholding=Thresholding(1.0, 0.9)),
])
def test_without_a_negative_prediction_the_conditional_one_is_what_is_left(guided: Guidance) -> None:
    space, raw = SPACES["epsilon"], outputs(8, "cond")
    made = predictions(space, raw)
    cond = torch.stack(list(made.x0))
    denoised = Guider(guided, space)(made)
    if guided.thresholding is None:
        close(denoised.x0, cond)
    assert denoised.uncond is None
