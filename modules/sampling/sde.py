"""Solvers of the reverse stochastic differential equation in lambda, the half log signal-to-noise ratio."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from modules.sampling import unipc as uni_pc
from modules.sampling.adams import quadrature
from modules.sampling.schedules import Sigmas
from modules.sampling.spaces import Space
from modules.sampling.steps import Denoise, Noise, ancestral, between, decay, drawn, finite_lambda, steps, toward

# SA-Solver is stochastic in this part of the timesteps (Xue et al. 2023, appendix E.1).
STOCHASTIC_TIMESTEPS = (0.2, 0.8)
ER_SDE_POINTS = 64


def dpmpp_sde(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5,
) -> Any:
    """DPM-Solver++ (stochastic), single step of second order with its inner point at the share ``r`` of lambda.

    k-diffusion's ``sample_dpmpp_sde``; both noises of a step come from one Brownian path. The last step, to sigma 0,
    is a plain one with a single model call.
    """
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        if sigma_next > 0:
            inner = between(space, sigma, sigma_next, r)
            x_inner = ancestral(space, x, x0, sigma, inner, eta, s_noise, noise)
            x0 = x0 * (1 - 1 / (2 * r)) + denoise(x_inner, inner).x0 * (1 / (2 * r))
        x = ancestral(space, x, x0, sigma, sigma_next, eta, s_noise, noise)
    return x


def dpmpp_2m_sde(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0, solver_type: str = "midpoint",
) -> Any:
    """DPM-Solver++(2M) SDE (Lu et al. 2022b, SDE-DPM-Solver++(2M), for any eta), k-diffusion's.

    ``solver_type`` is ``midpoint`` or ``heun``, the latter integrating the straight line exactly.
    """
    previous, h_last = None, math.inf
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        h = space.half_log_snr(sigma_next) - space.half_log_snr(sigma)
        x = _reversed(space, x, x0, (sigma, sigma_next), eta, s_noise, noise)
        if previous is not None and sigma_next > 0:
            decayed = -math.expm1(-h * (1 + eta))
            share = decayed / 2 if solver_type == "midpoint" else 1 - decayed / (h * (1 + eta))
            x = x + (x0 - previous) * (share * h / h_last * space.alpha(sigma_next))
        previous, h_last = x0, h
    return x


def dpmpp_3m_sde(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """DPM-Solver++(3M) SDE, k-diffusion's: two differences of the clean latent, started with none and with one."""
    past: list[tuple[Any, float]] = []
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        h = space.half_log_snr(sigma_next) - space.half_log_snr(sigma)
        x = _reversed(space, x, x0, (sigma, sigma_next), eta, s_noise, noise)
        if past and sigma_next > 0:
            x = x + _differences(x0, past, h, h * (1 + eta)) * space.alpha(sigma_next)
        past = [(x0, h), *past[:1]]
    return x


def er_sde(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, s_noise: float = 1.0,
) -> Any:
    """ER-SDE-Solver-3 (Cui et al. 2023, algorithm 3) with the noise function that it recommends.

    Taylor steps in sigma / alpha of order 1, 2 and then 3; pure noise counts as sigma 0.9999 of a flow.
    """
    past: list[tuple[float, Any]] = []
    slope_last = None
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        if sigma_next == 0:
            return x0
        now, then = (math.exp(-finite_lambda(space, level)) for level in (sigma, sigma_next))
        alpha, shrink = space.alpha(sigma_next), er_sde_noise(then) / er_sde_noise(now)
        x_next = x * (sigma_next / sigma * now / then * shrink) + x0 * (alpha * (1 - shrink))
        first, second = _er_sde_integrals(now, then)
        if past:
            slope = (x0 - past[0][1]) / (now - past[0][0])
            x_next = x_next + slope * (alpha * first)
            if slope_last is not None:
                x_next = x_next + (slope - slope_last) / ((now - past[1][0]) / 2) * (alpha * second)
            slope_last = slope
        amount = math.sqrt(max(then**2 - (now * shrink) ** 2, 0.0))
        x = x_next + drawn(noise, sigma, sigma_next) * (alpha * amount * s_noise)
        past = [(now, x0), *past[:1]]
    return x


def er_sde_noise(ratio: float) -> float:
    """Return ER-SDE's phi(r) = r * (e^(r^0.3) + 10) of the noise-to-signal ratio r (ER SDE 5 of its table 1)."""
    return ratio * (math.exp(ratio**0.3) + 10)


def sa_solver(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0, orders: tuple[int, int] = (3, 4),
) -> Any:
    """SA-Solver (Xue et al. 2023, algorithm 1): stochastic Adams predictor and corrector, one model call a step.

    tau is ``eta`` where the next timestep is in the middle 60 % and 0 elsewhere. ``orders`` are the numbers of clean
    latents that predictor and corrector use, the corrector's with the new one, rising at the start and, where the
    last level is 0, falling to the end; the last step to 0 is the clean latent itself.
    """
    count, falling = len(sigmas) - 1, sigmas[-1] == 0
    history: list[tuple[float, Any]] = []
    predicted, step, tau, fresh = x, (0.0, 0.0), 0.0, None
    for index, (sigma, sigma_next) in enumerate(steps(sigmas)):
        x0 = denoise(predicted, sigma).x0
        history = [(finite_lambda(space, sigma), x0), *history[: max(orders) - 1]]
        if sigma_next == 0:
            return x0
        left = count - index if falling else count
        if index:
            used = history[: min(orders[1], left)]
            predicted = _adams_step(space, x, step, used, tau, fresh)
        x, step, tau = predicted, (sigma, sigma_next), _tau(space, sigma_next, eta)
        fresh = drawn(noise, sigma, sigma_next) * s_noise if tau > 0 else None
        predicted = _adams_step(space, x, step, history[: min(orders[0], left - falling)], tau, fresh)
    return predicted


def _reversed(
    space: Space, x: Any, x0: Any, step: tuple[float, float], eta: float, s_noise: float, noise: Noise | None,
) -> Any:
    """The exact step of the SDE for a constant x0: e^(-h eta) of the noise kept, the rest of its variance new."""
    sigma, sigma_next = step
    if sigma_next == 0:
        return x0
    kept = decay(space, sigma, sigma_next) ** eta
    x = toward(space, x, x0, sigma, sigma_next, sigma_next * kept)
    if eta <= 0:
        return x
    return x + drawn(noise, sigma, sigma_next) * (sigma_next * math.sqrt(1 - kept * kept) * s_noise)


def _differences(x0: Any, past: list[tuple[Any, float]], h: float, h_eta: float) -> Any:
    """What earlier clean latents (newest first, each with the step made from it) add to a step of 3M SDE."""
    second = math.expm1(-h_eta) / h_eta + 1
    x0_1, r_0 = past[0][0], past[0][1] / h
    newest = (x0 - x0_1) / r_0
    if len(past) == 1:
        return newest * second
    x0_2, r_1 = past[1][0], past[1][1] / h
    older = (x0_1 - x0_2) / r_1
    curve = (newest - older) / (r_0 + r_1)
    return (newest + curve * r_0) * second - curve * (second / h_eta - 0.5)


def _er_sde_integrals(now: float, then: float) -> tuple[float, float]:
    """Cui et al. 2023, equation 26: what the first and second derivative of x0 add to a step of ``then - now``."""
    roots, masses = quadrature(ER_SDE_POINTS)
    low, span = math.log(then), math.log(now / then)
    points = np.exp(low + span / 2 * (1 + roots))
    # In log r, over which the integrand is even: dr = r d(log r).
    parts = masses * span / 2 * points / np.array([er_sde_noise(float(point)) for point in points])
    scale, change = er_sde_noise(then), then - now
    return (change + scale * float(parts.sum()),
            change * change / 2 + scale * float((parts * (points - now)).sum()))


def _adams_step(
    space: Space, x: Any, step: tuple[float, float], used: list[tuple[float, Any]], tau: float, fresh: Any,
) -> Any:
    """One stochastic Adams step through the clean latents ``used`` (lambda, x0), Xue et al. 2023, equations 14, 17."""
    sigma, sigma_next = step
    base_lambda = finite_lambda(space, sigma)
    h = finite_lambda(space, sigma_next) - base_lambda
    z, kept = -h * (1 + tau * tau), math.exp(-h * tau * tau)
    anchor = next(x0 for place, x0 in used if place == base_lambda) if len(used) > 1 else used[0][1]
    others = [((place - base_lambda) / h, x0) for place, x0 in used if x0 is not anchor]
    x_next = x * (sigma_next / sigma * kept) - anchor * (space.alpha(sigma_next) * math.expm1(z))
    weights = uni_pc.matched(z, [node for node, _ in others], 1.0)
    for weight, (_, x0) in zip(weights, others, strict=True):
        x_next = x_next - (x0 - anchor) * (weight * space.alpha(sigma_next))
    return x_next if fresh is None else x_next + fresh * (sigma_next * math.sqrt(1 - kept * kept))


def _tau(space: Space, sigma: float, eta: float) -> float:
    low, high = STOCHASTIC_TIMESTEPS
    share = space.sigma_to_t(sigma) / (len(space.sigmas) - 1)
    return eta if low <= share <= high else 0.0


