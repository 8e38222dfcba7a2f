"""What samplers are made of: single steps between noise levels, and the noise that they add.

A level is a sigma; ``alpha(sigma)`` of the ``Space`` says how much of the clean latent is in it. With alpha = 1 the
steps are k-diffusion's exactly; with alpha = 1 - sigma they are the same methods on a rectified flow. Latents may be
tensors or arrays: only operators touch them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modules.sampling.schedules import Sigmas
from modules.sampling.spaces import Space

# A flow begins at pure noise, where lambda is -inf; what needs a number is laid out as if from sigma 0.9999.
LOWEST_HALF_LOG_SNR = math.log(1e-4)


@dataclass(frozen=True)
class Denoised:
    """The model's clean latent ``x0`` after guidance, and ``uncond``, the one of the negative prompt, where known."""

    x0: Any
    uncond: Any = None


Denoise = Callable[[Any, float], Denoised]
Noise = Callable[[float, float], Any]


@dataclass(frozen=True)
class Churn:
    """Noise added before a step (Karras et al. 2022, algorithm 2): its amount over the whole run, where, how much."""

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0


def steps(sigmas: Sigmas) -> list[tuple[float, float]]:
    """Return the steps that ``sigmas`` make up: each level with the next."""
    return list(zip(sigmas[:-1], sigmas[1:], strict=True))


def slope(x: Any, x0: Any, sigma: float) -> Any:
    """Return dx/dsigma = (x - x0) / sigma, the direction of the probability flow in any space."""
    return (x - x0) / sigma


def toward(space: Space, x: Any, x0: Any, sigma: float, sigma_next: float, sigma_down: float) -> Any:
    """Return the exact step for a constant x0, to alpha(sigma_next) of the signal and sigma_down of the noise.

    ``alpha_next * x0 + sigma_down * (x - alpha * x0) / sigma``, which for alpha = 1 is Euler's step in sigma.
    """
    ratio = sigma_down / sigma
    return x * ratio + x0 * (space.alpha(sigma_next) - space.alpha(sigma) * ratio)


def drawn(noise: Noise | None, sigma: float, sigma_next: float) -> Any:
    """Return the noise of one step; raises ``ValueError`` where there is no source of it."""
    if noise is None:
        raise ValueError("a stochastic sampler needs a source of noise")
    return noise(sigma, sigma_next)


def ancestral(
    space: Space, x: Any, x0: Any, sigma: float, sigma_next: float, eta: float, s_noise: float, noise: Noise | None,
) -> Any:
    """Return the step for a constant x0 that goes below ``sigma_next`` and adds noise up to it."""
    down, up = ancestral_step(space, sigma, sigma_next, eta)
    x = toward(space, x, x0, sigma, sigma_next, down)
    if up == 0:
        return x
    return x + drawn(noise, sigma, sigma_next) * (up * s_noise)


def ancestral_step(space: Space, sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Return the noise kept and the noise added in an ancestral step; the sum of squares is ``sigma_next^2``.

    k-diffusion's ``get_ancestral_step`` on ``sigma / alpha``, so that it holds for any space; ``eta`` 0 adds none.
    """
    if eta <= 0 or sigma_next == 0:
        return sigma_next, 0.0
    shrink = decay(space, sigma, sigma_next)
    up = min(sigma_next, eta * sigma_next * math.sqrt(max(1 - shrink * shrink, 0.0)))
    return math.sqrt(sigma_next * sigma_next - up * up), up


def ancestral_level(space: Space, sigma: float, sigma_next: float, eta: float, lowest: float = 0.0) -> float:
    """Return the level, not below ``lowest``, to which an ancestral step solves before noise leads to ``sigma_next``.

    It has the noise-to-signal ratio that ``ancestral_step`` keeps. From pure noise it keeps as much as from 0.9999:
    none at all would leave a solver of higher order nowhere to go.
    """
    start = min(sigma, space.sigma_of(LOWEST_HALF_LOG_SNR))
    down, up = ancestral_step(space, start, sigma_next, eta)
    if up == 0:
        return max(sigma_next, lowest)
    ratio = down / space.alpha(sigma_next)
    return max(ratio / (1 + ratio) if space.prediction == "flow" else ratio, lowest)


def noised(
    space: Space, x: Any, step: tuple[float, float], noise: Noise | None, s_noise: float = 1.0,
) -> Any:
    """Return ``x`` at the first level of ``step`` raised to the second: its signal scaled down, fresh noise added.

    Where the second is not above the first, ``x`` itself.
    """
    sigma, raised = step
    if raised <= sigma:
        return x
    scale = space.alpha(raised) / space.alpha(sigma)
    return x * scale + drawn(noise, *step) * (s_noise * math.sqrt(max(raised**2 - (scale * sigma) ** 2, 0.0)))


def churned(
    space: Space, x: Any, step: tuple[float, float], churn: Churn, count: int, noise: Noise | None,
) -> tuple[Any, float]:
    """Raise x to a higher noise level, and return both (Karras et al. 2022, algorithm 2, lines 3 to 6).

    Once there is churn, noise is drawn outside the range too, as k-diffusion does, so that the stream moves on.
    """
    sigma = step[0]
    gamma = min(churn.s_churn / count, math.sqrt(2) - 1)
    if gamma <= 0:
        return x, sigma
    fresh, raised = drawn(noise, *step), sigma * (1 + gamma)
    if not churn.s_tmin <= sigma <= churn.s_tmax or space.alpha(raised) <= 0:
        return x, sigma
    return noised(space, x, (sigma, raised), lambda now, then: fresh, churn.s_noise), raised


def between(space: Space, sigma: float, sigma_next: float, share: float) -> float:
    """Return the level at a share of the way in lambda; from pure noise, where lambda is -inf, from just above it."""
    start = finite_lambda(space, sigma)
    return space.sigma_of(start + share * (space.half_log_snr(sigma_next) - start))


def finite_lambda(space: Space, sigma: float) -> float:
    """Return the half log-SNR of ``sigma``, above 0; nearer to pure noise that of a flow's 0.9999."""
    return max(space.half_log_snr(sigma), LOWEST_HALF_LOG_SNR)


def decay(space: Space, sigma: float, sigma_next: float) -> float:
    """Return e^-h for the step h in lambda, ``(sigma_next / alpha_next) / (sigma / alpha)``; 0 from pure noise."""
    return sigma_next * space.alpha(sigma) / (sigma * space.alpha(sigma_next))
