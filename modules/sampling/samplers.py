"""Samplers: pure functions from noise to a clean latent. Each is one function and one entry of ``SAMPLERS``.

A sampler is ``f(denoise, x, sigmas, *, noise, space, **options) -> x``. ``sigmas`` are Python floats that descend.
``denoise(x, sigma)`` returns the model's ``Denoised``. ``noise(sigma, sigma_next)`` returns unit normal noise in the
shape of ``x``. Latents may be tensors or arrays: only operators touch them.

The mathematics is k-diffusion's and AUTOMATIC1111's, written for any ``Space``: with alpha = 1 it is theirs exactly,
and with alpha = 1 - sigma it is the same method on a rectified flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modules.core.errors import InvalidRequest
from modules.sampling import unipc as uni_pc
from modules.sampling.schedules import SCHEDULES, Sigmas, near_matches
from modules.sampling.spaces import Space
from modules.sampling.timesteps import unipc_levels, visited_levels

# A flow begins at pure noise, where lambda is -inf; an inner point is laid out as if from sigma 0.9999.
LOWEST_HALF_LOG_SNR = math.log(1e-4)


@dataclass(frozen=True)
class Denoised:
    """The model's clean latent ``x0`` after guidance, and ``uncond``, the one of the negative prompt, where known."""

    x0: Any
    uncond: Any = None


Denoise = Callable[[Any, float], Denoised]
Noise = Callable[[float, float], Any]


@dataclass(frozen=True)
class Sampler:
    """One sampler and everything that is known about it.

    ``schedule`` is the schedule that Automatic means for it, empty for evenly spaced timesteps. ``second_order``
    samplers call the model twice a step. ``kind`` is ``timesteps`` where ``levels(space, timesteps, truncated=...)``
    gives its levels instead of a schedule. ``noise`` is what it draws after the start. ``uses_ensd`` says that the
    eta noise seed delta belongs into its infotext. ``order`` is the global order of accuracy with default options,
    its random part switched off. ``settings`` and ``level_settings`` map options of ``sample`` and ``levels`` to the
    settings that give their values; ``options`` are constant.
    """

    name: str
    sample: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    schedule: str = ""
    second_order: bool = False
    kind: Literal["sigma", "timesteps"] = "sigma"
    noise: Literal["none", "ancestral", "brownian"] = "none"
    uses_ensd: bool = False
    discard_penultimate: bool = False
    order: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    levels: Callable[..., Sigmas] = visited_levels
    level_settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def calls_per_step(self) -> int:
        """Model calls that count as one step in prompt editing and progress."""
        return 2 if self.second_order else 1


@dataclass(frozen=True)
class Churn:
    """Noise added before a step (Karras et al. 2022, algorithm 2): its amount over the whole run, where, how much."""

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0


def euler(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, **options: float,
) -> Any:
    """Euler's method (Karras et al. 2022, algorithm 2 without its correction); the options are those of ``Churn``."""
    churn = Churn(**options)
    for sigma, sigma_next in _steps(sigmas):
        x, sigma = _churned(space, x, (sigma, sigma_next), churn, len(sigmas) - 1, noise)
        x = _toward(space, x, denoise(x, sigma).x0, sigma, sigma_next, sigma_next)
    return x


def euler_ancestral(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """Ancestral sampling with Euler's method: step below the next level, then add noise up to it."""
    for sigma, sigma_next in _steps(sigmas):
        x = _ancestral(space, x, denoise(x, sigma).x0, sigma, sigma_next, eta, s_noise, noise)
    return x


def ddim(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, eta: float = 0.0,
) -> Any:
    """DDIM (Song et al. 2021, equation 12, sigma_t of equation 16).

    Divided by the square root of the cumulative alpha, it is the ancestral step of k-diffusion with the same eta.
    """
    return euler_ancestral(denoise, x, sigmas, noise=noise, space=space, eta=eta)


def dpmpp_2m(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """DPM-Solver++(2M), multistep of second order (Lu et al. 2022b, algorithm 2)."""
    previous, h_last = None, math.inf
    for sigma, sigma_next in _steps(sigmas):
        x0 = denoise(x, sigma).x0
        h = space.half_log_snr(sigma_next) - space.half_log_snr(sigma)
        extrapolation = 0.0 if previous is None or sigma_next == 0 else h / (2 * h_last)
        ahead = x0 + (x0 - previous) * extrapolation if extrapolation else x0
        x = _toward(space, x, ahead, sigma, sigma_next, sigma_next)
        previous, h_last = x0, h
    return x


def dpmpp_sde(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5,
) -> Any:
    """DPM-Solver++ (stochastic), single step of second order with its inner point at the share ``r`` of lambda.

    k-diffusion's ``sample_dpmpp_sde``; both noises of a step come from one Brownian path. The last step, to sigma 0,
    is a plain one with a single model call.
    """
    for sigma, sigma_next in _steps(sigmas):
        x0 = denoise(x, sigma).x0
        if sigma_next > 0:
            inner = _between(space, sigma, sigma_next, r)
            x_inner = _ancestral(space, x, x0, sigma, inner, eta, s_noise, noise)
            x0 = x0 * (1 - 1 / (2 * r)) + denoise(x_inner, inner).x0 * (1 / (2 * r))
        x = _ancestral(space, x, x0, sigma, sigma_next, eta, s_noise, noise)
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
    for index, (sigma, sigma_next) in enumerate(_steps(sigmas), start=1):
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


SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", dpmpp_2m, ("k_dpmpp_2m",), "karras", order=2),
    Sampler("DPM++ SDE", dpmpp_sde, ("k_dpmpp_sde",), "karras", second_order=True, noise="brownian", order=2,
            settings={"eta": "eta_ancestral", "s_noise": "s_noise"}),
    Sampler("Euler a", euler_ancestral, ("k_euler_a", "k_euler_ancestral"), noise="ancestral", uses_ensd=True,
            settings={"eta": "eta_ancestral", "s_noise": "s_noise"}),
    Sampler("Euler", euler, ("k_euler",), noise="ancestral",
            settings={"s_churn": "s_churn", "s_tmin": "s_tmin", "s_tmax": "s_tmax", "s_noise": "s_noise"}),
    Sampler("DDIM", ddim, ("ddim",), kind="timesteps", noise="ancestral", settings={"eta": "eta_ddim"}),
    Sampler("UniPC", unipc, ("unipc",), kind="timesteps", order=2,
            levels=unipc_levels, level_settings={"skip_type": "uni_pc_skip_type"},
            settings={"order": "uni_pc_order", "variant": "uni_pc_variant",
                      "lower_order_final": "uni_pc_lower_order_final"}),
)

OLD_SUFFIXES = {"_ka": "Karras", "_exp": "Exponential"}


def find_sampler(name: str) -> tuple[Sampler, str | None]:
    """Return the sampler called ``name`` and the label of the schedule that the name includes, or None.

    Labels and aliases in any case; older names with a schedule at the end (``DPM++ 2M Karras``, ``k_dpmpp_2m_ka``).
    Raises ``InvalidRequest`` naming the nearest ones.
    """
    wanted = " ".join(name.lower().split())
    if found := _by_name(wanted):
        return found, None
    for ending, label in _endings():
        if wanted.endswith(ending) and (found := _by_name(wanted.removesuffix(ending))):
            return found, label
    raise InvalidRequest(f"There is no sampler {name[:100]!r}.", near_matches(wanted, [s.name for s in SAMPLERS]))


def _by_name(wanted: str) -> Sampler | None:
    return next((s for s in SAMPLERS if wanted in (s.name.lower(), *s.aliases)), None)


def _endings() -> list[tuple[str, str]]:
    named = [(f" {name.lower()}", schedule.label) for schedule in SCHEDULES
             for name in (schedule.label, schedule.name, *schedule.aliases)]
    return [*named, *OLD_SUFFIXES.items()]


def _steps(sigmas: Sigmas) -> zip[tuple[float, float]]:
    return zip(sigmas[:-1], sigmas[1:], strict=True)


def _drawn(noise: Noise | None, sigma: float, sigma_next: float) -> Any:
    if noise is None:
        raise ValueError("a stochastic sampler needs a source of noise")
    return noise(sigma, sigma_next)


def _toward(space: Space, x: Any, x0: Any, sigma: float, sigma_next: float, sigma_down: float) -> Any:
    """The exact step for a constant x0, to alpha(sigma_next) of the signal and sigma_down of the noise.

    ``alpha_next * x0 + sigma_down * (x - alpha * x0) / sigma``, which for alpha = 1 is Euler's step in sigma.
    """
    ratio = sigma_down / sigma
    return x * ratio + x0 * (space.alpha(sigma_next) - space.alpha(sigma) * ratio)


def _ancestral(
    space: Space, x: Any, x0: Any, sigma: float, sigma_next: float, eta: float, s_noise: float, noise: Noise | None,
) -> Any:
    down, up = ancestral_step(space, sigma, sigma_next, eta)
    x = _toward(space, x, x0, sigma, sigma_next, down)
    if up == 0:
        return x
    return x + _drawn(noise, sigma, sigma_next) * (up * s_noise)


def ancestral_step(space: Space, sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Return the noise kept and the noise added in an ancestral step; the sum of squares is ``sigma_next^2``.

    k-diffusion's ``get_ancestral_step`` on ``sigma / alpha``, so that it holds for any space; ``eta`` 0 adds none.
    """
    if eta <= 0 or sigma_next == 0:
        return sigma_next, 0.0
    shrink = sigma_next * space.alpha(sigma) / (sigma * space.alpha(sigma_next))
    up = min(sigma_next, eta * sigma_next * math.sqrt(max(1 - shrink * shrink, 0.0)))
    return math.sqrt(sigma_next * sigma_next - up * up), up


def _churned(
    space: Space, x: Any, step: tuple[float, float], churn: Churn, steps: int, noise: Noise | None,
) -> tuple[Any, float]:
    """Raise x to a higher noise level, and return both (Karras et al. 2022, algorithm 2, lines 3 to 6).

    Once there is churn, noise is drawn outside the range too, as k-diffusion does, so that the stream moves on.
    """
    sigma = step[0]
    gamma = min(churn.s_churn / steps, math.sqrt(2) - 1)
    if gamma <= 0:
        return x, sigma
    fresh, raised = _drawn(noise, *step), sigma * (1 + gamma)
    if not churn.s_tmin <= sigma <= churn.s_tmax or space.alpha(raised) <= 0:
        return x, sigma
    scale = space.alpha(raised) / space.alpha(sigma)
    return x * scale + fresh * (churn.s_noise * math.sqrt(raised**2 - (scale * sigma) ** 2)), raised


def _between(space: Space, sigma: float, sigma_next: float, share: float) -> float:
    """The level at a share of the way in lambda; from pure noise, where lambda is -inf, from just above it."""
    start = max(space.half_log_snr(sigma), LOWEST_HALF_LOG_SNR)
    return space.sigma_of(start + share * (space.half_log_snr(sigma_next) - start))


def _unified(
    space: Space, x: Any, history: list[tuple[float, Any]], step: tuple[float, float], order: int, variant: str,
    point: tuple[float, Any] | None = None,
) -> Any:
    """One step of UniPC from ``history`` (lambda, x0), oldest first; corrected where ``point`` is the new one.

    From pure noise and to sigma 0, h is infinite and the plain step is all that is left.
    """
    sigma, sigma_next = step
    base_lambda, base = history[-1]
    x_next = _toward(space, x, base, sigma, sigma_next, sigma_next)
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
