"""The samplers there are: pure functions from noise to a clean latent, and everything that is known about each.

A sampler is ``f(denoise, x, sigmas, *, noise, space, **options) -> x``. ``sigmas`` are Python floats that descend.
``denoise(x, sigma)`` returns the model's ``Denoised``. ``noise(sigma, sigma_next)`` returns unit normal noise in the
shape of ``x``. Latents may be tensors or arrays: only operators touch them. Each is one function, in the module of its
kind, and one entry of ``SAMPLERS``.

The mathematics is k-diffusion's and AUTOMATIC1111's, written for any ``Space``: with alpha = 1 it is theirs exactly,
and with alpha = 1 - sigma it is the same method on a rectified flow. The first twenty are AUTOMATIC1111's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from modules.core.errors import InvalidRequest
from modules.sampling.ancestral import (
    consistency_space,
    ddim,
    ddpm,
    dpm_2_ancestral,
    dpmpp_2s_ancestral,
    euler_ancestral,
    lcm,
    tcd,
)
from modules.sampling.cfg_plus_plus import ddim_cfgpp, dpmpp_2m_cfgpp, euler_ancestral_cfgpp, euler_cfgpp
from modules.sampling.dpm_solver import adaptive_calls, dpm_adaptive, dpm_fast
from modules.sampling.multistep import (
    deis,
    dpmpp_2m,
    gradient_estimation,
    ipndm,
    ipndm_v,
    lms,
    plms,
    plms_calls,
    res_multistep,
    unipc,
)
from modules.sampling.schedules import SCHEDULES, Sigmas, near_matches
from modules.sampling.sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde, er_sde, sa_solver
from modules.sampling.single_step import dpm_2, euler, heun, heunpp2, heunpp2_calls, restart, restart_calls
from modules.sampling.spaces import Space
from modules.sampling.steps import Churn, Denoise, Denoised, Noise
from modules.sampling.timesteps import unipc_levels, visited_levels

__all__ = ["SAMPLERS", "Churn", "Denoise", "Denoised", "Noise", "Sampler", "find_sampler"]

CHURN = MappingProxyType({"s_churn": "s_churn", "s_tmin": "s_tmin", "s_tmax": "s_tmax", "s_noise": "s_noise"})
ANCESTRAL = MappingProxyType({"eta": "eta_ancestral", "s_noise": "s_noise"})


def whole_table(space: Space) -> Space:
    """Return ``space`` itself."""
    return space


@dataclass(frozen=True)
class Sampler:
    """One sampler and everything that is known about it.

    ``schedule`` is the schedule that Automatic means for it, empty for evenly spaced timesteps. ``calls_per_step`` is
    how many model calls count as one step in prompt editing and progress; a last step to 0 makes one. ``kind`` is
    ``timesteps`` where ``levels(space, timesteps, truncated=...)`` gives its levels instead of a schedule, and
    ``ends`` where only the ends count and the last must be above 0. ``noise`` is what it draws after the start.
    ``uses_ensd`` says that the eta noise seed delta belongs into its infotext. ``needs_uncond`` samplers read
    ``Denoised.uncond`` at any guidance scale. ``order`` is the global order of accuracy with default options, its
    random part switched off, or 0 where what it solves then is not the probability flow. ``settings`` and
    ``level_settings`` map options of ``sample`` and ``levels`` to the settings that give their values; ``options``
    are constant. ``grid`` gives the space over which its schedules are laid. ``count(sigmas, space)`` gives the
    model calls of a run where they are other than ``calls_per_step`` says. ``alone`` samplers look at all of ``x`` to
    decide on their steps, so that a picture must be sampled by itself to be the same in any batch.
    """

    name: str
    sample: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    schedule: str = ""
    calls_per_step: int = 1
    kind: Literal["sigma", "timesteps", "ends"] = "sigma"
    noise: Literal["none", "ancestral", "brownian"] = "none"
    uses_ensd: bool = False
    discard_penultimate: bool = False
    needs_uncond: bool = False
    order: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    levels: Callable[..., Sigmas] = visited_levels
    level_settings: Mapping[str, str] = field(default_factory=dict)
    grid: Callable[[Space], Space] = whole_table
    count: Callable[[Sigmas, Space], int] | None = None
    alone: bool = False

    @property
    def second_order(self) -> bool:
        """Whether a step makes more than one model call, which A1111 calls so."""
        return self.calls_per_step > 1


SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", dpmpp_2m, ("k_dpmpp_2m",), "karras", order=2),
    Sampler("DPM++ SDE", dpmpp_sde, ("k_dpmpp_sde",), "karras", calls_per_step=2, noise="brownian", order=2,
            settings=ANCESTRAL),
    Sampler("DPM++ 2M SDE", dpmpp_2m_sde, ("k_dpmpp_2m_sde",), "exponential", noise="brownian", order=2,
            settings=ANCESTRAL),
    Sampler("DPM++ 2M SDE Heun", dpmpp_2m_sde, ("k_dpmpp_2m_sde_heun",), "exponential", noise="brownian", order=2,
            settings=ANCESTRAL, options={"solver_type": "heun"}),
    Sampler("DPM++ 2S a", dpmpp_2s_ancestral, ("k_dpmpp_2s_a",), "karras", calls_per_step=2, noise="ancestral",
            uses_ensd=True, order=2, settings=ANCESTRAL),
    Sampler("DPM++ 3M SDE", dpmpp_3m_sde, ("k_dpmpp_3m_sde",), "exponential", noise="brownian",
            discard_penultimate=True, order=2, settings=ANCESTRAL),
    Sampler("Euler a", euler_ancestral, ("k_euler_a", "k_euler_ancestral"), noise="ancestral", uses_ensd=True,
            settings=ANCESTRAL),
    Sampler("Euler", euler, ("k_euler",), noise="ancestral", settings=CHURN),
    Sampler("LMS", lms, ("k_lms",), order=2),
    Sampler("Heun", heun, ("k_heun",), calls_per_step=2, noise="ancestral", order=2, settings=CHURN),
    Sampler("DPM2", dpm_2, ("k_dpm_2",), "karras", calls_per_step=2, noise="ancestral", discard_penultimate=True,
            order=2, settings=CHURN),
    Sampler("DPM2 a", dpm_2_ancestral, ("k_dpm_2_a",), "karras", calls_per_step=2, noise="ancestral", uses_ensd=True,
            discard_penultimate=True, order=2, settings=ANCESTRAL),
    Sampler("DPM fast", dpm_fast, ("k_dpm_fast",), kind="ends", noise="ancestral", uses_ensd=True, order=2,
            settings=ANCESTRAL),
    Sampler("DPM adaptive", dpm_adaptive, ("k_dpm_ad",), kind="ends", noise="ancestral", uses_ensd=True, order=0,
            settings={"eta": "eta_ancestral"}, count=adaptive_calls, alone=True),
    Sampler("Restart", restart, ("restart",), "karras", calls_per_step=2, noise="ancestral", order=0,
            count=restart_calls),
    Sampler("DDIM", ddim, ("ddim",), kind="timesteps", noise="ancestral", settings={"eta": "eta_ddim"}),
    Sampler("DDIM CFG++", ddim_cfgpp, ("ddim_cfgpp",), kind="timesteps", noise="ancestral", needs_uncond=True,
            settings={"eta": "eta_ddim"}),
    Sampler("PLMS", plms, ("plms",), kind="timesteps", order=2, count=plms_calls),
    Sampler("UniPC", unipc, ("unipc",), kind="timesteps", order=2,
            levels=unipc_levels, level_settings={"skip_type": "uni_pc_skip_type"},
            settings={"order": "uni_pc_order", "variant": "uni_pc_variant",
                      "lower_order_final": "uni_pc_lower_order_final"}),
    Sampler("LCM", lcm, ("k_lcm",), noise="ancestral", order=0, grid=consistency_space),
    Sampler("HeunPP2", heunpp2, ("heunpp2",), calls_per_step=3, noise="ancestral", settings=CHURN,
            count=heunpp2_calls),
    Sampler("IPNDM", ipndm, ("ipndm",), order=2),
    Sampler("IPNDM_V", ipndm_v, ("ipndm_v",), order=2),
    Sampler("DEIS", deis, ("deis",), order=2),
    Sampler("DDPM", ddpm, ("ddpm",), noise="ancestral", order=0),
    Sampler("ER SDE", er_sde, ("er_sde",), noise="ancestral", order=0, settings={"s_noise": "s_noise"}),
    Sampler("Res Multistep", res_multistep, ("res_multistep",), order=2),
    Sampler("Gradient Estimation", gradient_estimation, ("gradient_estimation",)),
    Sampler("SA Solver", sa_solver, ("sa_solver",), noise="ancestral", order=3, settings=ANCESTRAL),
    Sampler("TCD", tcd, ("tcd",), "sgm_uniform", noise="ancestral", order=0),
    Sampler("Euler CFG++", euler_cfgpp, ("euler_cfg_pp",), needs_uncond=True),
    Sampler("Euler a CFG++", euler_ancestral_cfgpp, ("euler_ancestral_cfg_pp",), noise="ancestral", uses_ensd=True,
            needs_uncond=True, settings=ANCESTRAL),
    Sampler("DPM++ 2M CFG++", dpmpp_2m_cfgpp, ("dpmpp_2m_cfg_pp",), "karras", needs_uncond=True, order=2),
)

OLD_SUFFIXES = {"_ka": "Karras", "_exp": "Exponential"}


def find_sampler(name: str, samplers: Sequence[Sampler] = SAMPLERS) -> tuple[Sampler, str | None]:
    """Return the one of ``samplers`` called ``name`` and the label of the schedule that the name includes, or None.

    Labels and aliases in any case; older names with a schedule at the end (``DPM++ 2M Karras``, ``k_dpmpp_2m_ka``).
    Raises ``InvalidRequest`` naming the nearest ones.
    """
    wanted = " ".join(name.lower().split())
    if found := _by_name(wanted, samplers):
        return found, None
    for ending, label in _endings():
        if wanted.endswith(ending) and (found := _by_name(wanted.removesuffix(ending), samplers)):
            return found, label
    raise InvalidRequest(f"There is no sampler {name[:100]!r}.", near_matches(wanted, [s.name for s in samplers]))


def _by_name(wanted: str, samplers: Sequence[Sampler]) -> Sampler | None:
    return next((s for s in samplers if wanted in (s.name.lower(), *s.aliases)), None)


def _endings() -> list[tuple[str, str]]:
    named = [(f" {name.lower()}", schedule.label) for schedule in SCHEDULES
             for name in (schedule.label, schedule.name, *schedule.aliases)]
    return [*named, *OLD_SUFFIXES.items()]
