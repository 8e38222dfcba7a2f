"""Deterministic samplers that remember what the model said at earlier levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from modules.sampling import adams
from modules.sampling import unipc as uni_pc
from modules.sampling.schedules import Sigmas
from modules.sampling.spaces import Space
from modules.sampling.steps import Denoise, Noise, slope, steps, toward

# Adams-Bashforth for even steps, the newest slope first.
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def dpmpp_2m(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """DPM-Solver++(2M), multistep of second order (Lu et al. 2022b, algorithm 2)."""
    previous, h_last = None, math.inf
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        h = space.half_log_snr(sigma_next) - space.half_log_snr(sigma)
        extrapolation = 0.0 if previous is None or sigma_next == 0 else h / (2 * h_last)
        ahead = x0 + (x0 - previous) * extrapolation if extrapolation else x0
        x = toward(space, x, ahead, sigma, sigma_next, sigma_next)
        previous, h_last = x0, h
    return x


def lms(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, order: int = 4,
) -> Any:
    """Linear multistep: Adams-Bashforth for uneven steps in sigma (k-diffusion's ``sample_lms``)."""
    slopes: list[Any] = []
    for index, (sigma, sigma_next) in enumerate(steps(sigmas)):
        slopes = [slope(x, denoise(x, sigma).x0, sigma), *slopes[: order - 1]]
        nodes = sigmas[index::-1][: len(slopes)]
        x = _moved(x, slopes, adams.weights(nodes, sigma, sigma_next))
    return x


def plms(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """PLMS: pseudo linear multistep (Liu et al. 2022, PNDM, equation 12), started as in latent diffusion.

    The first step is by the mean of the slopes at its ends and costs two model calls; the next two have one and two
    older slopes, all others three.
    """
    slopes: list[Any] = []
    for sigma, sigma_next in steps(sigmas):
        slopes = [slope(x, denoise(x, sigma).x0, sigma), *slopes[:3]]
        mixed = _combined(slopes, ADAMS_BASHFORTH[len(slopes) - 1])
        if len(slopes) == 1 and sigma_next > 0:
            ahead = x + mixed * (sigma_next - sigma)
            mixed = (mixed + slope(ahead, denoise(ahead, sigma_next).x0, sigma_next)) * 0.5
        x = x + mixed * (sigma_next - sigma)
    return x


def plms_calls(sigmas: Sigmas, space: Space) -> int:
    """Return how many model calls ``plms`` makes: one a step and one more in the first, unless it goes to 0."""
    return len(sigmas) - 1 + (len(sigmas) > 1 and sigmas[1] > 0)


def ipndm(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """Improved PNDM (Zhang and Chen 2023, appendix H.2): Adams-Bashforth for even steps, of rising order up to 4."""
    slopes: list[Any] = []
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        slopes = [slope(x, x0, sigma), *slopes[:3]]
        x = x0 if sigma_next == 0 else _stepped(x, slopes, sigma_next - sigma)
    return x


def ipndm_v(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """Improved PNDM for uneven steps: the coefficients are those of the steps that were made; to 0 a plain step."""
    return _adams(denoise, x, sigmas, 4, float)


def deis(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    order: int = 3, time: Callable[[float], float] = adams.deis_time,
) -> Any:
    """DEIS (Zhang and Chen 2023, equation 15): the slope is a polynomial in time, integrated exactly over sigma.

    ``time`` of a level is that of the VP diffusion (tAB-DEIS); the logarithm gives the form that diffusers has.
    ``order`` is 1 or more; the last step, to 0, is a plain one.
    """
    return _adams(denoise, x, sigmas, order, time)


def res_multistep(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """RES, multistep of second order (Zhang et al. 2023, "refined exponential solver", equation 11).

    The clean latent is a straight line in lambda, integrated exactly; the first step and one to 0 are plain.
    """
    previous, h_last = None, math.inf
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        x_next = toward(space, x, x0, sigma, sigma_next, sigma_next)
        h = space.half_log_snr(sigma_next) - space.half_log_snr(sigma)
        if previous is not None and sigma_next > 0 and math.isfinite(h_last):
            weight = h * h * uni_pc.phi(2, -h) / h_last * space.alpha(sigma_next)
            x_next = x_next + (x0 - previous) * weight
        x, previous, h_last = x_next, x0, h
    return x


def gradient_estimation(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, gamma: float = 2.0,
) -> Any:
    """Gradient estimation (Permenter and Yuan 2024, algorithm 2): slope + (gamma - 1) * (slope - the one before)."""
    previous = None
    for sigma, sigma_next in steps(sigmas):
        x0 = denoise(x, sigma).x0
        here = slope(x, x0, sigma)
        mixed = here if previous is None else here + (here - previous) * (gamma - 1)
        x = x0 if sigma_next == 0 else x + mixed * (sigma_next - sigma)
        previous = here
    return x


def unipc(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    order: int = 3, variant: str = "bh1", lower_order_final: bool = True,
) -> Any:
    """UniPC, multistep predictor and corrector in data prediction (Zhao et al. 2023, algorithms 1 to 4).

    ``order`` is 1 or more and at most the number of steps, ``variant`` ``bh1``, ``bh2`` or ``vary_coeff``. The first
    steps are of rising order; with ``lower_order_final`` the last are of falling order. The last step has no
    corrector. ``sigmas`` end above 0, as A1111's do; a last level of 0 is reached by a plain step.
    """
    count = len(sigmas) - 1
    order = max(1, min(order, count))
    history: list[tuple[float, Any]] = []
    for index, (sigma, sigma_next) in enumerate(steps(sigmas), start=1):
        if not history:
            history = [(space.half_log_snr(sigma), denoise(x, sigma).x0)]
        step_order = min(order, index, count + 1 - index if lower_order_final else order)
        x_next = _unified(space, x, history, (sigma, sigma_next), step_order, variant)
        if index < count:
            point = (space.half_log_snr(sigma_next), denoise(x_next, sigma_next).x0)
            x_next = _unified(space, x, history, (sigma, sigma_next), step_order, variant, point)
            history = [*history[-(order - 1):], point] if order > 1 else [point]
        x = x_next
    return x


def _adams(denoise: Denoise, x: Any, sigmas: Sigmas, order: int, time: Callable[[float], float]) -> Any:
    slopes: list[Any] = []
    for index, (sigma, sigma_next) in enumerate(steps(sigmas)):
        x0 = denoise(x, sigma).x0
        slopes = [slope(x, x0, sigma), *slopes[: order - 1]]
        nodes = sigmas[index::-1][: len(slopes)]
        x = x0 if sigma_next == 0 else _moved(x, slopes, adams.transformed_weights(nodes, sigma, sigma_next, time))
    return x


def _combined(slopes: list[Any], coefficients: tuple[float, ...]) -> Any:
    """The slopes, newest first, times their coefficients, added up."""
    total = slopes[0] * coefficients[0]
    for past, coefficient in zip(slopes[1:], coefficients[1:], strict=True):
        total = total + past * coefficient
    return total


def _moved(x: Any, slopes: list[Any], coefficients: tuple[float, ...]) -> Any:
    return x + _combined(slopes, coefficients)


def _stepped(x: Any, slopes: list[Any], distance: float) -> Any:
    return x + _combined(slopes, ADAMS_BASHFORTH[len(slopes) - 1]) * distance


def _unified(
    space: Space, x: Any, history: list[tuple[float, Any]], step: tuple[float, float], order: int, variant: str,
    point: tuple[float, Any] | None = None,
) -> Any:
    """One step of UniPC from ``history`` (lambda, x0), oldest first; corrected where ``point`` is the new one.

    From pure noise and to sigma 0, h is infinite and the plain step is all that is left.
    """
    sigma, sigma_next = step
    base_lambda, base = history[-1]
    x_next = toward(space, x, base, sigma, sigma_next, sigma_next)
    h = space.half_log_snr(sigma_next) - base_lambda
    if math.isinf(h):
        return x_next
    used = [past for past in reversed(history[-order:-1]) if math.isfinite(past[0])]
    nodes, points = [(past - base_lambda) / h for past, _ in used], [x0 for _, x0 in used]
    if point is None:
        weights = uni_pc.predictor(variant, -h, nodes)
    else:
        weights, points = uni_pc.corrector(variant, -h, nodes), [*points, point[1]]
    for weight, x0 in zip(weights, points, strict=True):
        x_next = x_next - (x0 - base) * (weight * space.alpha(sigma_next))
    return x_next
