"""A run: the levels, scales and options with which a sampler is called, decided before any tensor exists."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings
from modules.sampling.samplers import Sampler
from modules.sampling.schedules import Schedule, Sigmas, find_schedule, schedule_sigmas
from modules.sampling.spaces import Space
from modules.sampling.timesteps import Timesteps, spaced_timesteps

MAX_STRENGTH = 0.999


@dataclass(frozen=True)
class Run:
    """Everything that one call of a sampler needs but the model, the noise and the latent.

    The sampler starts from ``init * init_scale + noise * start_scale`` (``init`` a picture's latent, absent in
    txt2img), is called as ``sampler.sample(denoise, x, sigmas, noise=..., space=space, **options)``, and its result
    is multiplied by ``end_scale``. ``steps`` is what was asked for; the levels may be more. ``noise_range`` is the
    lowest level above 0 and the highest of the whole schedule, over which Brownian noise is laid out.
    ``schedule`` is the one that was carried out: Automatic where the sampler prefers none, None for a timestep
    sampler, whose ``timesteps`` ascend and whose ``level_options`` say how they are spread.
    """

    sampler: Sampler
    schedule: Schedule | None
    space: Space
    steps: int
    sigmas: Sigmas
    init_scale: float
    start_scale: float
    end_scale: float
    noise_range: tuple[float, float]
    options: Mapping[str, Any] = field(default_factory=dict)
    timesteps: Timesteps = ()
    level_options: Mapping[str, Any] = field(default_factory=dict)


def prepare(sampler: Sampler, schedule: str | Schedule, steps: int, space: Space, settings: Settings) -> Run:
    """Return the run of ``steps`` (1 or more) steps from pure noise.

    ``schedule`` is a schedule, its name or its label; Automatic (or empty) is the sampler's own. Timestep samplers
    bring their own levels. Raises ``InvalidRequest`` for an unknown schedule or settings that leave no levels.
    """
    if steps < 1:
        raise InvalidRequest(f"steps must be at least 1, not {steps}.")
    chosen = _resolved(sampler, schedule)
    if sampler.kind == "timesteps":
        return _timestep_run(sampler, steps, space, settings)
    space = sampler.grid(space)
    sigmas = _scheduled(sampler, chosen, steps, space, settings)
    start = space.norm(sigmas[0]) if settings.sgm_noise_multiplier else sigmas[0]
    return Run(sampler, chosen, space, steps, sigmas, space.alpha(sigmas[0]), start, 1.0, _positive_range(sigmas),
               _sample_options(sampler, settings))


def truncate(run: Run, denoise_strength: float) -> Run:
    """Return the part of ``run`` that img2img carries out at ``denoise_strength`` (0 to 1).

    The last ``int(min(strength, 0.999) * steps) + 1`` steps of a sigma sampler.
    """
    return truncate_to(run, int(min(max(denoise_strength, 0.0), MAX_STRENGTH) * run.steps))


def exact_steps(steps: int, denoise_strength: float) -> tuple[int, int]:
    """Return the steps to ``prepare`` and the ``t_enc`` to ``truncate_to`` for just ``steps`` steps at a strength.

    What the hires pass does, and img2img with the setting that fixes its steps.
    """
    if denoise_strength <= 0:
        return steps, 0
    return int(steps / min(denoise_strength, MAX_STRENGTH)), steps - 1


def truncate_to(run: Run, t_enc: int) -> Run:
    """Return ``run`` from its ``t_enc``-th step before the last on (0 to steps - 1), starting from a noised picture.

    Timestep samplers noise the picture to timestep ``t_enc`` and begin one timestep below, as A1111's do. Raises
    ``InvalidRequest`` where the schedule has not that many levels.
    """
    if not 0 <= t_enc < run.steps:
        raise ValueError(f"t_enc {t_enc} is outside 0 to {run.steps - 1}")
    if run.sampler.kind == "timesteps":
        return _truncated_timesteps(run, t_enc)
    sigmas = run.sigmas[run.steps - t_enc - 1:]
    if len(sigmas) < 2:
        raise InvalidRequest(f"The schedule has only {len(run.sigmas) - 1} steps, not {run.steps}.",
                             "Use a higher denoising strength, fewer steps or another schedule.")
    return dataclasses.replace(run, sigmas=sigmas, init_scale=run.space.alpha(sigmas[0]), start_scale=sigmas[0])


def model_calls(run: Run) -> int:
    """Return how many model calls ``run`` makes; a last step to sigma 0 is a single one."""
    if run.sampler.count:
        return run.sampler.count(run.sigmas, run.space)
    steps, each = len(run.sigmas) - 1, run.sampler.calls_per_step
    return steps * each - (each - 1 if steps and run.sigmas[-1] == 0 else 0)


def _resolved(sampler: Sampler, schedule: str | Schedule) -> Schedule:
    chosen = find_schedule(schedule) if isinstance(schedule, str) else schedule
    return find_schedule(sampler.schedule) if chosen.name == "automatic" else chosen


def _scheduled(sampler: Sampler, schedule: Schedule, steps: int, space: Space, settings: Settings) -> Sigmas:
    discard = sampler.discard_penultimate or settings.always_discard_next_to_last_sigma
    sigmas = schedule_sigmas(schedule, steps + discard, space, sigma_min=settings.sigma_min,
                             sigma_max=settings.sigma_max, rho=settings.rho,
                             options=_values(schedule.settings, settings))
    sigmas = (*sigmas[:-2], sigmas[-1]) if discard else sigmas
    return (*sigmas[:-1], settings.sigma_min or space.sigma_min) if sampler.kind == "ends" else sigmas


def _sample_options(sampler: Sampler, settings: Settings) -> Mapping[str, Any]:
    options = _values(sampler.settings, settings)
    if options.get("s_tmax") == 0:
        options["s_tmax"] = math.inf
    return {**sampler.options, **options}


def _values(names: Mapping[str, str], settings: Settings) -> dict[str, Any]:
    return {option: getattr(settings, name) for option, name in names.items()}


def _positive_range(sigmas: Sigmas) -> tuple[float, float]:
    return min(sigma for sigma in sigmas if sigma > 0), max(sigmas)


def _timestep_run(sampler: Sampler, steps: int, space: Space, settings: Settings) -> Run:
    timesteps = spaced_timesteps(steps + settings.always_discard_next_to_last_sigma, len(space.sigmas))
    spread = _values(sampler.level_settings, settings)
    sigmas = sampler.levels(space, timesteps, truncated=False, **spread)
    return Run(sampler, None, space, steps, sigmas, space.alpha(sigmas[0]), space.norm(sigmas[0]),
               1.0 / space.norm(sigmas[-1]), _positive_range(sigmas), _sample_options(sampler, settings), timesteps,
               spread)


def _truncated_timesteps(run: Run, t_enc: int) -> Run:
    space, noised = run.space, run.space.sigmas[run.timesteps[t_enc]]
    sigmas: Sigmas = (noised,)
    if t_enc > 0:
        sigmas = run.sampler.levels(space, run.timesteps[:t_enc], truncated=True, **run.level_options)
    scale = space.norm(sigmas[0]) / space.norm(noised)
    return dataclasses.replace(run, sigmas=sigmas, init_scale=space.alpha(noised) * scale,
                               start_scale=noised * scale, end_scale=1.0 / space.norm(sigmas[-1]))
