import itertools
import math

import numpy as np
import pytest
import torch

from modules.sampling.cfg_plus_plus import ddim_cfgpp, dpmpp_2m_cfgpp, euler_ancestral_cfgpp, euler_cfgpp
from modules.sampling.multistep import dpmpp_2m
from modules.sampling.samplers import Denoised
from tests.sampling.analytic import FLOW, SD, SD_CONFIG, gaussian, start, toy

SIGMAS = (9.0, 4.0, 1.5, 0.6)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_cfgpp_by_its_formula_in_timesteps(eta):
    """A1111's loop: a 12.5th of the scale, and the noise of the unguided prediction; sigma_t as DDIM's."""
    cumulative = [1 / (1 + sigma**2) for sigma in SIGMAS]
    x, fresh = np.array([1.0, -0.4]), np.array([0.3, 0.1])
    y = x
    for sigma, (a_t, a_prev) in zip(SIGMAS, itertools.pairwise(cumulative), strict=False):
        seen = toy(y / math.sqrt(a_t), sigma)
        softened = seen.uncond + (seen.x0 - seen.uncond) / 12.5
        uncond_noise = (y - math.sqrt(a_t) * seen.uncond) / math.sqrt(1 - a_t)
        sigma_t = eta * math.sqrt((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev))
        y = math.sqrt(a_prev) * softened + math.sqrt(1 - a_prev - sigma_t**2) * uncond_noise + sigma_t * fresh
    ours = ddim_cfgpp(toy, x * math.hypot(1, SIGMAS[0]), SIGMAS, noise=lambda now, then: fresh, space=SD, eta=eta)
    np.testing.assert_allclose(ours / math.hypot(1, SIGMAS[-1]), y, rtol=1e-12)


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_euler_cfgpp_adds_the_unguided_noise_to_the_guided_latent(space):
    sigmas = SIGMAS if space is SD else (0.9, 0.6, 0.3, 0.0)
    x = y = np.array([2.0, -3.0])
    for sigma, sigma_next in itertools.pairwise(sigmas):
        seen = toy(y, sigma)
        noise = (y - space.alpha(sigma) * seen.uncond) / sigma
        y = space.alpha(sigma_next) * seen.x0 + sigma_next * noise
    np.testing.assert_allclose(euler_cfgpp(toy, x, sigmas, space=space), y, rtol=1e-12)


def test_euler_ancestral_cfgpp_by_its_formula():
    x = y = np.array([2.0, -3.0])
    fresh = np.array([0.3, -0.1])
    for sigma, sigma_next in itertools.pairwise(SIGMAS):
        seen = toy(y, sigma)
        up = 0.8 * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2)
        down = math.sqrt(sigma_next**2 - up**2)
        y = seen.x0 + down * (y - seen.uncond) / sigma + 1.02 * up * fresh
    ours = euler_ancestral_cfgpp(toy, x, SIGMAS, noise=lambda now, then: fresh, space=SD, eta=0.8, s_noise=1.02)
    np.testing.assert_allclose(ours, y, rtol=1e-12)


def test_dpmpp_2m_cfgpp_by_its_formula():
    """Its authors' program, in e^-h: x0 - e^-h u + e^-h x - (e^-h - 1) (u - u') / (2 r)."""
    sigmas = (*SIGMAS, 0.0)
    x = y = np.array([2.0, -3.0])
    before, h_last = None, None
    for sigma, sigma_next in itertools.pairwise(sigmas):
        seen = toy(y, sigma)
        shrink = sigma_next / sigma
        y = seen.x0 - shrink * seen.uncond + shrink * y
        if before is not None and sigma_next > 0:
            h = math.log(sigma / sigma_next)
            y = y - (shrink - 1) * (seen.uncond - before) / (2 * h_last / h)
        before, h_last = seen.uncond, math.log(sigma / sigma_next) if sigma_next else 0
    np.testing.assert_allclose(dpmpp_2m_cfgpp(toy, x, sigmas, space=SD), y, rtol=1e-12)


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_where_both_predictions_agree_they_are_the_plain_methods(space):
    sigmas = SIGMAS if space is SD else (1.0, 0.6, 0.3, 0.05)
    x = np.array([2.0, -3.0])
    np.testing.assert_allclose(dpmpp_2m_cfgpp(gaussian(space), x, sigmas, space=space),
                               dpmpp_2m(gaussian(space), x, sigmas, space=space))


def test_ddim_cfgpp_of_equal_predictions_is_diffusers_ddim():
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**SD_CONFIG, timestep_spacing="leading", steps_offset=1, clip_sample=False,
                           prediction_type="sample")
    theirs.set_timesteps(20)
    sigmas = tuple(SD.sigmas[timestep] for timestep in theirs.timesteps)

    def unguided(x, sigma):
        x0 = toy(x, sigma).x0
        return Denoised(x0, x0)

    x = expected = start()
    for timestep, sigma in zip(theirs.timesteps[:-1], sigmas, strict=False):
        expected = theirs.step(unguided(expected * math.hypot(1, sigma), sigma).x0, timestep, expected).prev_sample
    ours = ddim_cfgpp(unguided, x * math.hypot(1, sigmas[0]), sigmas, space=SD)
    torch.testing.assert_close(ours / math.hypot(1, sigmas[-1]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sample", [ddim_cfgpp, euler_cfgpp, euler_ancestral_cfgpp, dpmpp_2m_cfgpp])
def test_without_the_unguided_prediction_they_say_so(sample):
    with pytest.raises(ValueError, match="negative prompt"):
        sample(lambda x, sigma: Denoised(x), np.ones(2), SIGMAS, noise=lambda now, then: np.ones(2), space=SD)
