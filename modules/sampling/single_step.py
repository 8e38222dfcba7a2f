"""Single-step samplers of the probability flow, with or without churn, and Restart, which walks part of it again."""

from __future__ import annotations

import math
from typing import Any

from modules.sampling.schedules import Sigmas, karras
from modules.sampling.spaces import Space
from modules.sampling.steps import Churn, Denoise, Noise, between, churned, noised, slope, steps, toward

RESTART_FROM, RESTART_TO = 2.0, 0.1


def euler(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, **options: float,
) -> Any:
    """Euler's method (Karras et al. 2022, algorithm 2 without its correction); the options are those of ``Churn``."""
    churn = Churn(**options)
    for sigma, sigma_next in steps(sigmas):
        x, sigma = churned(space, x, (sigma, sigma_next), churn, len(sigmas) - 1, noise)
        x = toward(space, x, denoise(x, sigma).x0, sigma, sigma_next, sigma_next)
    return x


def heun(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, **options: float,
) -> Any:
    """Heun's method (Karras et al. 2022, algorithm 2); the options are those of ``Churn``."""
    churn = Churn(**options)
    for sigma, sigma_next in steps(sigmas):
        x, sigma = churned(space, x, (sigma, sigma_next), churn, len(sigmas) - 1, noise)
        x = heun_step(denoise, x, sigma, sigma_next)
    return x


def dpm_2(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, **options: float,
) -> Any:
    """DPM-Solver-2 in sigma: the midpoint method whose inner level is the geometric mean of its ends.

    k-diffusion's ``sample_dpm_2``; for a flow the inner level is the middle in lambda. The options are ``Churn``'s.
    """
    churn = Churn(**options)
    for sigma, sigma_next in steps(sigmas):
        x, sigma = churned(space, x, (sigma, sigma_next), churn, len(sigmas) - 1, noise)
        x = midpoint_step(denoise, x, sigma, sigma_next, space)
    return x


def heunpp2(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, **options: float,
) -> Any:
    """Heun++: slopes of up to three levels ahead, weighted by the level over the first one.

    Each later slope has the weight sigma / (n * sigma_0), the first the rest of 1, n being 3, and 2 and 1 in the
    last two steps. As published by its author (sd-webui-samplers-scheduler). The options are those of ``Churn``.
    """
    churn = Churn(**options)
    for index, (sigma, sigma_next) in enumerate(steps(sigmas)):
        x, sigma = churned(space, x, (sigma, sigma_next), churn, len(sigmas) - 1, noise)
        first = here = slope(x, denoise(x, sigma).x0, sigma)
        x_ahead, now, mixed = x, sigma, first
        ahead = sigmas[index + 1 : min(index + 3, len(sigmas) - 1)]
        for level in ahead:
            x_ahead, now = x_ahead + here * (level - now), level
            here = slope(x_ahead, denoise(x_ahead, level).x0, level)
            mixed = mixed + (here - first) * (level / ((len(ahead) + 1) * sigmas[0]))
        x = x + mixed * (sigma_next - sigma)
    return x


def heunpp2_calls(sigmas: Sigmas, space: Space) -> int:
    """Return how many model calls ``heunpp2`` makes: three a step, two and one in the last two."""
    count = len(sigmas) - 1
    return sum(min(3, count - index) for index in range(count))


def restart(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """Restart sampling (Xu et al. 2023, algorithm 1) with Heun's steps, as AUTOMATIC1111 lays it out.

    From 20 steps on, part of them walk again from sigma 2 to 0.1 (in a flow from the levels of the same signal-to-
    noise ratio) after the noise between the two was added, once, or twice from 36 steps on. What is left of the
    steps is a Karras schedule between the ends of ``sigmas``.
    """
    level = sigmas[0]
    for sigma, sigma_next in restart_steps(sigmas, space):
        x = noised(space, x, (level, sigma), noise)
        x, level = heun_step(denoise, x, sigma, sigma_next), sigma_next
    return x


def restart_steps(sigmas: Sigmas, space: Space) -> list[tuple[float, float]]:
    """Return the steps that ``restart`` makes; where one begins above the end of the one before, noise is added."""
    count = len(sigmas) - 1
    if count < 20:
        return steps(sigmas)
    times, again = (2, count // 4) if count >= 36 else (1, 9)
    outer = karras(count - again * times, sigmas[-2], sigmas[0], space)
    low, high = (_nearest(outer, space.sigma_of(-math.log(ratio))) for ratio in (RESTART_TO, RESTART_FROM))
    if low == 0 or high >= low:
        return steps(outer)
    inner = karras(again + 1, outer[low], outer[high], space)[:-1]
    return steps(outer[: low + 1]) + steps(inner) * times + steps(outer[low:])


def restart_calls(sigmas: Sigmas, space: Space) -> int:
    """Return how many model calls ``restart`` makes: two a step, one in a step to 0."""
    return sum(1 if sigma_next == 0 else 2 for _, sigma_next in restart_steps(sigmas, space))


def heun_step(denoise: Denoise, x: Any, sigma: float, sigma_next: float) -> Any:
    """Return the step by the mean of the slopes at both ends; to sigma 0, where there is none, by the first."""
    here = slope(x, denoise(x, sigma).x0, sigma)
    x_next = x + here * (sigma_next - sigma)
    if sigma_next == 0:
        return x_next
    there = slope(x_next, denoise(x_next, sigma_next).x0, sigma_next)
    return x + (here + there) * ((sigma_next - sigma) / 2)


def midpoint_step(denoise: Denoise, x: Any, sigma: float, sigma_next: float, space: Space) -> Any:
    """Return the step by the slope at the middle in lambda; to sigma 0, where there is none, by that at its start."""
    here = slope(x, denoise(x, sigma).x0, sigma)
    if sigma_next > 0:
        middle = between(space, sigma, sigma_next, 0.5)
        x_middle = x + here * (middle - sigma)
        here = slope(x_middle, denoise(x_middle, middle).x0, middle)
    return x + here * (sigma_next - sigma)


def _nearest(sigmas: Sigmas, level: float) -> int:
    return min(range(len(sigmas)), key=lambda index: abs(sigmas[index] - level))
