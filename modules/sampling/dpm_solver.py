"""DPM-Solver's own layouts (Lu et al. 2022a): steps between two ends, as many or as few as it chooses.

The slope dx/dsigma is integrated exactly over log sigma for polynomials in it (algorithms 1 to 3), which for a flow is
the same equation. Of ``sigmas`` only the ends count, the last one above 0, and for ``dpm_fast`` how many there are.
"""

from __future__ import annotations

import math
from typing import Any

from modules.core.errors import DarkroomError
from modules.sampling import unipc as uni_pc
from modules.sampling.schedules import Sigmas
from modules.sampling.spaces import Space
from modules.sampling.steps import Denoise, Noise, ancestral_level, noised, slope

FIRST_STEP, ACCEPTED, ENOUGH = 0.05, 0.81, 1e-5
MAX_ATTEMPTS = 1000
# What the adaptive solver needs for a unit of log sigma, at its default tolerance; only progress depends on it.
CALLS_PER_UNIT = 10


def dpm_fast(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """DPM-Solver-fast (section 3.4): as many model calls as ``sigmas`` has steps, in steps of order 3, 2 and 1.

    Ancestral with ``eta``, as k-diffusion's; there is no noise in the last step.
    """
    orders = fast_orders(len(sigmas) - 1)
    if not orders:
        return x
    first, last = sigmas[0], min(sigmas[0], sigmas[-1])
    levels = [first * (last / first) ** (index / len(orders)) for index in range(len(orders))] + [last]
    for order, sigma, sigma_next in zip(orders, levels[:-1], levels[1:], strict=True):
        level = ancestral_level(space, sigma, sigma_next, eta, last)
        solver = _Step(denoise, x, sigma, level)
        x = (solver.first, solver.second, solver.third)[order - 1]()
        x = noised(space, x, (level, sigma_next), noise, s_noise)
    return x


def fast_orders(calls: int) -> list[int]:
    """Return the orders of the steps of DPM-Solver-fast, which add up to ``calls``."""
    if calls < 1:
        return []
    thirds, rest = divmod(calls, 3)
    return [3] * (thirds - 1) + [2, 1] if rest == 0 else [3] * thirds + [rest]


def dpm_adaptive(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0, tolerances: tuple[float, float] = (0.05, 0.0078),
) -> Any:
    """DPM-Solver-23 (appendix C, algorithm 7): steps as long as orders 2 and 3 agree within ``tolerances``.

    k-diffusion's ``sample_dpm_adaptive`` with its step size controller at the default coefficients (of which only
    the integral one is not 0), ancestral with ``eta``. The tolerances are relative and absolute. The error is the
    root mean square over all of ``x``, so a picture must be sampled alone for its steps to depend on nothing else.
    Raises ``DarkroomError`` where the error is no number or the end is not reached within ``MAX_ATTEMPTS`` steps.
    """
    sigma, last, h, low_before = sigmas[0], sigmas[-1], FIRST_STEP, x
    for _ in range(MAX_ATTEMPTS):
        if math.log(sigma / last) <= ENOUGH:
            return x
        sigma_next = max(last, sigma * math.exp(-h))
        level = ancestral_level(space, sigma, sigma_next, eta, last)
        solver = _Step(denoise, x, sigma, level)
        low, high = solver.second(1 / 3), solver.third()
        factor = _step_factor(_error(low, high, low_before, *tolerances), 1.5 if eta else 3.0)
        h *= factor
        if factor >= ACCEPTED:
            x, sigma, low_before = noised(space, high, (level, sigma_next), noise, s_noise), sigma_next, low
    raise DarkroomError(f"DPM adaptive did not finish within {MAX_ATTEMPTS} steps.",
                        "Use another sampler or a lower guidance scale.")


def adaptive_calls(sigmas: Sigmas, space: Space) -> int:
    """Return about how many model calls ``dpm_adaptive`` makes."""
    return math.ceil(CALLS_PER_UNIT * math.log(sigmas[0] / sigmas[-1])) if len(sigmas) > 1 else 0


class _Step:
    """One step from ``sigma`` to ``level``; what the model said inside it is asked only once."""

    def __init__(self, denoise: Denoise, x: Any, sigma: float, level: float) -> None:
        self._denoise, self._x, self._sigma, self._level = denoise, x, sigma, level
        self._h = math.log(sigma / level)
        self._here = self._slope(x, sigma)
        self._inner: dict[float, Any] = {}

    def first(self) -> Any:
        """Return the step of order 1, one model call."""
        return self._x + self._here * (self._level - self._sigma)

    def second(self, r: float = 0.5) -> Any:
        """Return the step of order 2 with its inner point at ``r``, two model calls."""
        return self.first() + (self._change(r) * ((self._level - self._sigma) / (2 * r)))

    def third(self, r_1: float = 1 / 3, r_2: float = 2 / 3) -> Any:
        """Return the step of order 3, three model calls."""
        inner = self._at(r_2)
        x_inner = self._x + self._here * (inner - self._sigma) - self._change(r_1) * (self._curved(r_2) / r_1)
        return self.first() - (self._slope(x_inner, inner) - self._here) * (self._curved(1.0) / r_2)

    def _change(self, r: float) -> Any:
        if r not in self._inner:
            inner = self._at(r)
            self._inner[r] = self._slope(self._x + self._here * (inner - self._sigma), inner) - self._here
        return self._inner[r]

    def _curved(self, r: float) -> float:
        """sigma_r * r * ((e^(r h) - 1) / (r h) - 1) of algorithm 2."""
        return self._at(r) * r * (r * self._h) * uni_pc.phi(2, r * self._h)

    def _at(self, r: float) -> float:
        return self._sigma * math.exp(-r * self._h)

    def _slope(self, x: Any, sigma: float) -> Any:
        return slope(x, self._denoise(x, sigma).x0, sigma)


def _error(low: Any, high: Any, low_before: Any, rtol: float, atol: float) -> float:
    delta = _larger(_larger(abs(low), abs(low_before)) * rtol, atol)
    return math.sqrt(float((((low - high) / delta) ** 2).mean()))


def _larger(one: Any, other: Any) -> Any:
    return (one + other + abs(one - other)) * 0.5


def _step_factor(error: float, order: float) -> float:
    if not math.isfinite(error):
        raise DarkroomError("DPM adaptive cannot go on: the model's prediction is not a number.",
                            "Use another sampler, or run the model in a higher precision.")
    return 1 + math.atan((1 / (error + 1e-8)) ** (1 / order) - 1)
