"""CFG++ (Chung et al. 2024): the guided clean latent, with the noise of the unguided prediction added back.

Guidance then interpolates: the scale is the paper's lambda, of which 0 to 1 (and a little above) is of use. All need
``Denoised.uncond``. In any space, with ``epsilon = (x - alpha * uncond) / sigma``.
"""

from __future__ import annotations

import math
from typing import Any

from modules.sampling.schedules import Sigmas
from modules.sampling.spaces import Space
from modules.sampling.steps import Denoise, Denoised, Noise, ancestral_step, decay, drawn, steps, toward

# AUTOMATIC1111 divides the guidance scale of DDIM CFG++ by it, so that the usual 7.5 is lambda = 0.6.
A1111_SCALE = 12.5


def ddim_cfgpp(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space, eta: float = 0.0,
) -> Any:
    """DDIM CFG++ (algorithm 2) with a 12.5th of the guidance scale, as AUTOMATIC1111 has it."""

    def softened(x: Any, sigma: float) -> Denoised:
        denoised = denoise(x, sigma)
        uncond = _uncond(denoised)
        return Denoised(uncond + (denoised.x0 - uncond) * (1 / A1111_SCALE), uncond)

    return euler_ancestral_cfgpp(softened, x, sigmas, noise=noise, space=space, eta=eta)


def euler_cfgpp(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """Euler's method with CFG++ (algorithm 2); DDIM CFG++ without randomness."""
    return euler_ancestral_cfgpp(denoise, x, sigmas, space=space, eta=0.0)


def euler_ancestral_cfgpp(
    denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space,
    eta: float = 1.0, s_noise: float = 1.0,
) -> Any:
    """Ancestral sampling with Euler's method and CFG++."""
    for sigma, sigma_next in steps(sigmas):
        denoised = denoise(x, sigma)
        down, up = ancestral_step(space, sigma, sigma_next, eta)
        x = _renoised(space, x, denoised, sigma, sigma_next, down)
        if up > 0:
            x = x + drawn(noise, sigma, sigma_next) * (up * s_noise)
    return x


def dpmpp_2m_cfgpp(denoise: Denoise, x: Any, sigmas: Sigmas, *, noise: Noise | None = None, space: Space) -> Any:
    """DPM-Solver++(2M) with CFG++ (the paper's appendix and program): what is extrapolated is the unguided part."""
    previous, h_last = None, math.inf
    for sigma, sigma_next in steps(sigmas):
        denoised = denoise(x, sigma)
        x = _renoised(space, x, denoised, sigma, sigma_next, sigma_next)
        h = space.half_log_snr(sigma_next) - space.half_log_snr(sigma)
        if previous is not None and sigma_next > 0:
            weight = (1 - decay(space, sigma, sigma_next)) * h / (2 * h_last) * space.alpha(sigma_next)
            x = x + (denoised.uncond - previous) * weight
        previous, h_last = denoised.uncond, h
    return x


def _renoised(space: Space, x: Any, denoised: Denoised, sigma: float, sigma_next: float, down: float) -> Any:
    """``alpha_next * x0 + down * (x - alpha * uncond) / sigma``."""
    x_next = toward(space, x, _uncond(denoised), sigma, sigma_next, down)
    return x_next + (denoised.x0 - denoised.uncond) * space.alpha(sigma_next)


def _uncond(denoised: Denoised) -> Any:
    if denoised.uncond is None:
        raise ValueError("CFG++ needs the prediction of the negative prompt")
    return denoised.uncond
