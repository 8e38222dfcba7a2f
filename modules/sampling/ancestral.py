"""Samplers that add fresh, independent noise at every step."""

from __future__ import annotations

import math
from typing import Any

from modules.sampling.schedules import Sigmas
from modules.sampling.single_step import midpoint_step
from modules.sampling.spaces import Space
from modules.sampling.steps import (
    Denoise,
    Noise,
    ancestral,
    ancestral_level,
    between,
    drawn,
    noised,
    steps,
    toward,
)

# Latent consistency models are trained at this many of the table's levels, with sigma_data and the factor of the
# timestep below (Luo et al. 2023, section 4 and its authors' program).
CONSISTENCY_LEVELS = 50
CONSISTENCY_SIGMA, CONSISTENCY_SCALE = 0.5, 10.0


def euler_ancestral(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """Ancestral sampling with Euler's method: step below the next level, then add noise up to it."""
    for sigma, sigma_next in steps(sigmas):
        x = ancestral(space, x, denoise(x, sigma).x0, sigma, sigma_next, eta, s_noise, noise)
    return x


def ddim(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, eta: float = 0.0,
) -> Any:
    """DDIM (Song et al. 2021, equation 12, sigma_t of equation 16).

    Divided by the square root of the cumulative alpha, it is the ancestral step of k-diffusion with the same eta.
    """
    return euler_ancestral(denoise, x, sigmas, noise=noise, space=space, eta=eta)


def ddpm(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """DDPM (Ho et al. 2020, algorithm 2 with the posterior's own variance, equation 7); DDIM with eta 1."""
    return euler_ancestral(denoise, x, sigmas, noise=noise, space=space)


def dpm_2_ancestral(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """Ancestral sampling with DPM-Solver-2's midpoint steps (k-diffusion's ``sample_dpm_2_ancestral``)."""
    for sigma, sigma_next in steps(sigmas):
        level = ancestral_level(space, sigma, sigma_next, eta)
        x = midpoint_step(denoise, x, sigma, level, space)
        x = noised(space, x, (level, sigma_next), noise, s_noise)
    return x


def dpmpp_2s_ancestral(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """Ancestral sampling with DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1, r = 1/2), as k-diffusion's."""
    for sigma, sigma_next in steps(sigmas):
        level = ancestral_level(space, sigma, sigma_next, eta)
        x0 = denoise(x, sigma).x0
        if level > 0:
            middle = between(space, sigma, level, 0.5)
            x0 = denoise(toward(space, x, x0, sigma, middle, middle), middle).x0
        x = noised(space, toward(space, x, x0, sigma, level, level), (level, sigma_next), noise, s_noise)
    return x


def lcm(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """Multistep consistency sampling of a latent consistency model (Luo et al. 2023, algorithm 3).

    Each step is the consistency function ``c_skip * x + c_out * x0`` (equation 9; boundary scalings at ten times the
    timestep), after which fresh noise leads to the next level.
    """
    for sigma, sigma_next in steps(sigmas):
        x = _consistent(space, x, denoise(x, sigma).x0, sigma)
        if sigma_next > 0:
            x = space.add_noise(x, drawn(noise, sigma, sigma_next), sigma_next)
    return x


def tcd(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, eta: float = 0.3,
) -> Any:
    """Strategic stochastic sampling of a trajectory consistency model (Zheng et al. 2024, algorithm 4).

    Each step goes on along the trajectory to timestep ``floor((1 - eta) * next)`` and adds noise up to the next
    level; ``eta`` (gamma, 0 to 1) 0 is deterministic. The last step, to sigma 0, is the clean latent itself.
    """
    for sigma, sigma_next in steps(sigmas):
        level = _floored(space, sigma_next, eta)
        x = noised(space, toward(space, x, denoise(x, sigma).x0, sigma, level, level), (level, sigma_next), noise)
    return x


def consistency_space(space: Space) -> Space:
    """Return ``space`` with the 50 levels at which latent consistency models are trained; a flow as it is.

    Its timesteps are told to the network as whole ones of the training grid, as AUTOMATIC1111 tells them to LCM.
    """
    stride = len(space.sigmas) // CONSISTENCY_LEVELS
    if space.prediction == "flow" or stride < 1:
        return space
    return space.thinned(stride)


def _consistent(space: Space, x: Any, x0: Any, sigma: float) -> Any:
    scaled = CONSISTENCY_SCALE * space.timestep(sigma)
    variance = scaled * scaled + CONSISTENCY_SIGMA * CONSISTENCY_SIGMA
    skip, out = CONSISTENCY_SIGMA * CONSISTENCY_SIGMA / variance, scaled / math.sqrt(variance)
    return x0 * out + x * skip


def _floored(space: Space, sigma: float, eta: float) -> float:
    """The level of the rounded down timestep at a share ``eta`` of the way from the timestep of ``sigma`` to 0."""
    if sigma == 0 or eta <= 0:
        return sigma
    return min(space.t_to_sigma(math.floor((1 - eta) * space.sigma_to_t(sigma))), sigma)

