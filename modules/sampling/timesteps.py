"""The levels of samplers that bring their own timesteps instead of following a schedule, as A1111 lays them out."""

from __future__ import annotations

import math
from typing import Any

from modules.sampling.schedules import Sigmas
from modules.sampling.spaces import Space
from modules.sampling.steps import finite_lambda

Timesteps = tuple[int, ...]


def spaced_timesteps(steps: int, count: int = 1000) -> Timesteps:
    """Return every ``count // steps``-th timestep plus one, ascending, none above ``count - 1``.

    There are more than ``steps`` where it does not divide ``count``. One step would be one timestep and nothing to
    step to, so it goes from the last timestep to the first.
    """
    timesteps = tuple(min(place + 1, count - 1) for place in range(0, count, max(count // steps, 1)))
    return timesteps if len(timesteps) > 1 else (1, count - 1)


def visited_levels(space: Space, timesteps: Timesteps, *, truncated: bool = False, **options: Any) -> Sigmas:
    """Return the levels of the timesteps themselves, descending: one step fewer than there are timesteps."""
    return tuple(space.sigmas[place] for place in reversed(timesteps))


def unipc_levels(
    space: Space, timesteps: Timesteps, *, truncated: bool = False, skip_type: str = "time_uniform", **options: Any
) -> Sigmas:
    """Return UniPC's levels, descending: as many steps as there are timesteps, down to the table's lowest level.

    They begin at the top of the table or, ``truncated``, at the last timestep, and are even in time
    (``time_uniform``), in its square root (``time_quadratic``) or in lambda (``logSNR``), with time being
    ``(place + 1) / count`` as in DPM-Solver's ``NoiseScheduleVP``.
    """
    count, steps = len(space.sigmas), len(timesteps)
    first, last = ((timesteps[-1] + 1) / count if truncated else 1.0), 1 / count
    shares = [index / steps for index in range(steps + 1)]
    if skip_type == "logSNR":
        top = _level_at(space, first)
        low, high = finite_lambda(space, top), space.half_log_snr(_level_at(space, last))
        return (top, *(space.sigma_of(low + (high - low) * share) for share in shares[1:]))
    power = 2 if skip_type == "time_quadratic" else 1
    times = [(first ** (1 / power) * (1 - share) + last ** (1 / power) * share) ** power for share in shares]
    return tuple(_level_at(space, time) for time in times)


def _level_at(space: Space, time: float) -> float:
    """The level at a time within 1/count to 1; between timesteps linear in log alpha, for flow in sigma."""
    place = min(max(time * len(space.sigmas) - 1, 0.0), len(space.sigmas) - 1.0)
    low = min(int(place), len(space.sigmas) - 2)
    pair = space.sigmas[low : low + 2]
    if space.prediction == "flow":
        return pair[0] + (pair[1] - pair[0]) * (place - low)
    below, above = (math.log1p(sigma * sigma) for sigma in pair)
    return math.sqrt(math.expm1(below + (above - below) * (place - low)))
