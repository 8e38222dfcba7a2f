"""Schedules: which noise levels a run visits. Each is one function and one entry of ``SCHEDULES``.

A schedule function takes ``(steps, sigma_min, sigma_max, space)`` and, where it has them, ``rho`` or options; it
returns Python floats that descend and, but for KL Optimal, end in 0. The first twelve have the names, formulas and
quirks of AUTOMATIC1111 (version 1.10.1), so that a seed gives the same picture.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modules.core.errors import InvalidRequest
from modules.sampling.beta import beta_quantile
from modules.sampling.published import align_your_steps, align_your_steps_32, align_your_steps_gits
from modules.sampling.spaces import Space

Sigmas = tuple[float, ...]


@dataclass(frozen=True)
class Schedule:
    """One schedule: ``name`` is for the API, ``label`` for people and infotexts, either finds it.

    ``default_rho`` is -1 where the function has no ``rho``. ``need_inner_model`` says that the levels follow the
    model's own table rather than the two ends alone. ``settings`` maps options of the function to the settings that
    give their values.
    """

    name: str
    label: str
    function: Callable[..., Sigmas]
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    need_inner_model: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def uniform(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return levels at evenly spaced places of the whole table (k-diffusion's ``get_sigmas``), ignoring the ends."""
    return _levels_at(space, _evenly_spaced(len(space.sigmas) - 1.0, 0.0, steps))


def karras(steps: int, sigma_min: float, sigma_max: float, space: Space, rho: float = 7.0) -> Sigmas:
    """Return levels whose ``1 / rho`` powers are evenly spaced (Karras et al. 2022, equation 5)."""
    roots = _evenly_spaced(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps)
    return (*(root**rho for root in roots), 0.0)


def exponential(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return levels whose logarithms are evenly spaced."""
    return (*(math.exp(log) for log in _evenly_spaced(math.log(sigma_max), math.log(sigma_min), steps)), 0.0)


def polyexponential(steps: int, sigma_min: float, sigma_max: float, space: Space, rho: float = 1.0) -> Sigmas:
    """Return levels whose logarithms go from end to end with the power ``rho`` of an even ramp (k-diffusion's)."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    return (*(math.exp(low + (high - low) * ramp**rho) for ramp in _evenly_spaced(1.0, 0.0, steps)), 0.0)


def sgm_uniform(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return ``steps`` of ``steps + 1`` evenly spaced places of the table between the ends, the lowest left out."""
    places = _evenly_spaced(space.sigma_to_t(sigma_max), space.sigma_to_t(sigma_min), steps + 1)
    return _levels_at(space, places[:-1])


def kl_optimal(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return levels whose arctangents are evenly spaced (Sabour et al. 2024, theorem 3.1).

    As AUTOMATIC1111's, the last is ``sigma_min`` itself, not 0.
    """
    angles = _evenly_spaced(math.atan(sigma_max), math.atan(sigma_min), steps + 1)
    return tuple(math.tan(angle) for angle in angles)


def simple(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return every ``len / steps``-th level of the table from the top, rounded down to whole places."""
    stride = len(space.sigmas) / steps
    return (*(space.sigmas[-(1 + int(index * stride))] for index in range(steps)), 0.0)


def normal(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return levels at evenly spaced places of the table between the two ends, both included."""
    return _levels_at(space, _evenly_spaced(space.sigma_to_t(sigma_max), space.sigma_to_t(sigma_min), steps))


def ddim(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return every ``len // steps``-th level of the table from place 1 up: DDIM's own timesteps.

    Where ``steps`` does not divide the table, there are more levels than steps.
    """
    stride = max(len(space.sigmas) // steps, 1)
    return (*reversed(space.sigmas[1::stride]), 0.0)


def beta(
    steps: int, sigma_min: float, sigma_max: float, space: Space, alpha: float = 0.6, beta: float = 0.6
) -> Sigmas:
    """Return levels at even quantiles of a beta distribution between the ends (Lee et al. 2024, Beta Sampling)."""
    shares = _evenly_spaced(1.0, 0.0, steps)
    return (*(sigma_min + beta_quantile(share, alpha, beta) * (sigma_max - sigma_min) for share in shares), 0.0)


def beta57(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return levels at places of the whole table that are quantiles of the beta distribution of 0.5 and 0.7.

    Lee et al. 2024 in timesteps, as other programs have it, but for places that are not rounded.
    """
    top = len(space.sigmas) - 1
    return _levels_at(space, [top * beta_quantile(1 - index / steps, 0.5, 0.7) for index in range(steps)])


def turbo(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return every ``len / steps``-th level of the table from the top, rounded: the timesteps of SD Turbo."""
    stride = len(space.sigmas) / steps
    return (*(space.sigmas[max(round((steps - index) * stride - 1), 0)] for index in range(steps)), 0.0)


def linear_quadratic(steps: int, sigma_min: float, sigma_max: float, space: Space) -> Sigmas:
    """Return levels that fall slowly, in even steps, for half of the steps and then ever faster, along a parabola.

    The first half takes away 2.5 % of ``sigma_max``; both parts meet with one slope (Genmo's Mochi 1).
    """
    even, slow = steps // 2, 0.025
    if even == 0:
        return (sigma_max, 0.0)
    rest, missing = steps - even, even - slow * steps
    curve, line = missing / (even * rest**2), slow / even - 2 * missing / rest**2
    gone = [slow * index / even if index < even else curve * (index**2 + even**2) + line * index
            for index in range(steps)]
    return (*(sigma_max * (1 - share) for share in gone), 0.0)


SCHEDULES: tuple[Schedule, ...] = (
    Schedule("automatic", "Automatic", uniform, need_inner_model=True),
    Schedule("uniform", "Uniform", uniform, need_inner_model=True),
    Schedule("karras", "Karras", karras, default_rho=7.0),
    Schedule("exponential", "Exponential", exponential),
    Schedule("polyexponential", "Polyexponential", polyexponential, default_rho=1.0),
    Schedule("sgm_uniform", "SGM Uniform", sgm_uniform, aliases=("SGMUniform",), need_inner_model=True),
    Schedule("kl_optimal", "KL Optimal", kl_optimal),
    Schedule("align_your_steps", "Align Your Steps", align_your_steps),
    Schedule("simple", "Simple", simple, need_inner_model=True),
    Schedule("normal", "Normal", normal, need_inner_model=True),
    Schedule("ddim", "DDIM", ddim, need_inner_model=True),
    Schedule("beta", "Beta", beta, need_inner_model=True,
             settings={"alpha": "beta_dist_alpha", "beta": "beta_dist_beta"}),
    Schedule("turbo", "Turbo", turbo, need_inner_model=True),
    Schedule("align_your_steps_GITS", "Align Your Steps GITS", align_your_steps_gits),
    Schedule("align_your_steps_11", "Align Your Steps 11", align_your_steps),
    Schedule("align_your_steps_32", "Align Your Steps 32", align_your_steps_32),
    Schedule("linear_quadratic", "Linear Quadratic", linear_quadratic),
    Schedule("beta57", "Beta57", beta57, need_inner_model=True),
)


def find_schedule(name_or_label: str) -> Schedule:
    """Return the schedule with that name, label or alias, in any case; empty is Automatic.

    Raises ``InvalidRequest`` naming the nearest ones.
    """
    wanted = name_or_label.strip().lower() or "automatic"
    for schedule in SCHEDULES:
        if wanted in map(str.lower, (schedule.name, schedule.label, *schedule.aliases)):
            return schedule
    labels = [schedule.label for schedule in SCHEDULES]
    raise InvalidRequest(f"There is no schedule {name_or_label[:100]!r}.", near_matches(wanted, labels))


def near_matches(wanted: str, labels: list[str]) -> str:
    """Return a sentence that offers the labels nearest to ``wanted``, or all of them."""
    by_lower = {label.lower(): label for label in labels}
    near = difflib.get_close_matches(wanted[:100].lower(), list(by_lower), n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(by_lower[match] for match in near)}?"
    return f"There are {', '.join(labels)}."


def schedule_sigmas(
    schedule: Schedule, steps: int, space: Space, *, sigma_min: float = 0.0, sigma_max: float = 0.0, rho: float = 0.0,
    options: Mapping[str, float] = MappingProxyType({}),
) -> Sigmas:
    """Return the levels of ``steps`` (1 or more) steps under ``schedule``, descending strictly.

    ``sigma_min`` and ``sigma_max`` replace the model's own ends and ``rho`` the schedule's, where above 0 and where
    the schedule uses them; ``options`` are those that ``settings`` names. Raises ``InvalidRequest`` for ends that
    leave no range or that the model does not have, and for options that leave some steps nothing to do.
    """
    if steps < 1:
        raise InvalidRequest(f"steps must be at least 1, not {steps}.")
    low, high = sigma_min or space.sigma_min, sigma_max or space.sigma_max
    if low >= high:
        raise InvalidRequest(f"The schedule's min sigma {low:g} is not below its max sigma {high:g}.",
                             "Set both to 0 for the model's own.")
    if space.prediction == "flow" and high > 1:
        raise InvalidRequest(f"The schedule's max sigma {high:g} is above 1, where a flow model begins.",
                             "Set it to 0 for the model's own.")
    extra = {"rho": rho} if schedule.default_rho > 0 and rho > 0 else options
    sigmas = schedule.function(steps, low, high, space, **extra)
    if any(above <= below for above, below in itertools.pairwise(sigmas)):
        raise InvalidRequest(f"{schedule.label} makes steps without a change of noise of {steps} steps here.",
                             "Use fewer steps, another schedule or its default settings.")
    return sigmas


def _levels_at(space: Space, places: list[float]) -> Sigmas:
    return (*(space.t_to_sigma(place) for place in places), 0.0)


def _evenly_spaced(start: float, end: float, count: int) -> list[float]:
    if count == 1:
        return [start]
    return [start + (end - start) * index / (count - 1) for index in range(count)]
