"""Soft inpainting against its formulas, written out for single vectors and cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modules.core.plan import SoftBlend
from modules.engine.soft_inpainting import evened, mix, opacity

OURS, THEIRS = (torch.randn(1, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
                for n in (3, 4))


def keep(value: float, size: int = 3) -> torch.Tensor:
    return torch.full((1, 1, size, size), value, dtype=torch.float64)


@pytest.mark.parametrize(("soft", "sigma", "kept"), [
    (SoftBlend(), 2.0, 0.5), (SoftBlend(bias=2.0, preservation=1.5), 0.7, 0.25), (SoftBlend(boost=1.0), 9.0, 0.9),
    (SoftBlend(bias=0.0, boost=32.0), 3.0, 0.6),
])
def test_a_blend_has_the_direction_of_the_mean_and_the_power_mean_of_the_lengths(
    soft: SoftBlend, sigma: float, kept: float
) -> None:
    found = mix(soft)(OURS, THEIRS, keep(kept), sigma).numpy()
    share = (1 - kept) ** (math.pow(sigma, soft.bias) * soft.preservation)
    for y in range(3):
        for x in range(3):
            one, other = OURS[0, :, y, x].numpy(), THEIRS[0, :, y, x].numpy()
            straight = share * one + (1 - share) * other
            length = (share * math.dist(one, [0] * 4) ** soft.boost
                      + (1 - share) * math.dist(other, [0] * 4) ** soft.boost) ** (1 / soft.boost)
            np.testing.assert_allclose(found[0, :, y, x], straight / np.linalg.norm(straight) * length, rtol=1e-4)


def test_what_is_kept_stays_and_what_is_repainted_is_free() -> None:
    blend = mix(SoftBlend())
    assert torch.allclose(blend(OURS, THEIRS, keep(1.0), 3.0), THEIRS, rtol=1e-4)
    assert torch.allclose(blend(OURS, THEIRS, keep(0.0), 3.0), OURS, rtol=1e-4)
    assert blend(OURS.half(), THEIRS.half(), keep(0.5).half(), 3.0).dtype == torch.float16


def test_the_mean_between_percentiles_is_that_of_the_sorted_neighbourhood() -> None:
    values = np.random.default_rng(5).random((6, 7))
    found = evened(values, 0.25, 0.75)
    for y, x in ((0, 0), (2, 3), (5, 6), (0, 4)):
        near = sorted(
            (values[v, u], math.exp(-((v - y) ** 2 + (u - x) ** 2) / 1.5**2))
            for v in range(6) for u in range(7) if (v - y) ** 2 + (u - x) ** 2 <= 4)
        total, reached, sum_, weight = sum(w for _, w in near), 0.0, 0.0, 0.0
        for value, w in near:
            part = max(0.0, min(reached + w, 0.75 * total) - max(reached, 0.25 * total))
            reached, sum_, weight = reached + w, sum_ + part * value, weight + part
        assert found[y, x] == pytest.approx(sum_ / weight)


def test_upper_percentiles_spread_and_middle_ones_remove_what_stands_alone() -> None:
    one = np.zeros((9, 9))
    one[4, 4] = 1.0
    assert evened(one, 0.25, 0.75)[4, 4] == 0
    spread = evened(one, 0.9, 1.0)
    assert (spread[4, 3:6] > 0).all() and spread[4, 4] == 1 and spread[0, 0] == 0


def test_what_came_out_differently_is_shown() -> None:
    original = torch.zeros(2, 4, 8, 8)
    made = original.clone()
    made[0, :, :, 4:] = 5.0
    first, second = opacity(original, made, torch.zeros(2, 1, 8, 8), SoftBlend())
    assert first[:, 0].max() == 0 and first[:, 1].max() < 0.02 and first[:, 6:].min() > 0.99 and not second.any()
    # Latents as far apart as the threshold: half is shown.
    same = torch.full((1, 4, 8, 8), 0.25)
    np.testing.assert_allclose(opacity(original[:1], same, torch.zeros(1, 1, 8, 8), SoftBlend())[0], 0.5, atol=1e-3)


def test_with_influence_the_mask_decides_too() -> None:
    original, made = torch.zeros(1, 4, 8, 8), torch.full((1, 4, 8, 8), 0.25)
    kept = torch.zeros(1, 1, 8, 8)
    kept[..., :4] = 1
    shown = opacity(original, made, kept, SoftBlend(influence=1.0))[0]
    assert shown[:, :4].max() < 1e-6 and shown[:, 4:].min() > 0.999


@pytest.mark.parametrize("soft", [SoftBlend(threshold=0.0, contrast=8.0), SoftBlend(influence=1.0, contrast=0.0),
                                  SoftBlend(preservation=0.0, bias=8.0)])
def test_extremes_stay_numbers(soft: SoftBlend) -> None:
    made, kept = OURS * 100, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).expand(1, 1, 3, 3)
    shown = opacity(THEIRS, made, kept, soft)[0]
    assert np.isfinite(shown).all() and shown.min() >= 0 and shown.max() <= 1
    assert mix(soft)(OURS, THEIRS, kept, 14.6).isfinite().all() and mix(soft)(OURS, THEIRS, kept, 0.0).isfinite().all()
