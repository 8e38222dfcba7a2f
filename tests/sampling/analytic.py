"""What the tests of samplers share: a Gaussian whose solutions are known, a nonlinear toy, diffusers over the toy."""

import math

import numpy as np
import torch

from modules.sampling.samplers import Denoised, find_sampler
from modules.sampling.spaces import flow_space, space_from_betas

SD, FLOW = space_from_betas(), flow_space()
MEAN, DEVIATION = 0.7, 0.6
SD_CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def gaussian(space):
    """The exact denoiser of x0 ~ N(MEAN, DEVIATION^2): the posterior mean given x = alpha x0 + sigma noise."""

    def denoise(x, sigma):
        alpha, variance = space.alpha(sigma), DEVIATION**2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        x0 = (x - alpha * MEAN) * gain + MEAN
        return Denoised(x0, x0)

    return denoise


def flowed(space, x, sigma, sigma_next):
    """The exact solution of the probability flow: the standardised latent does not change."""
    scales = [math.hypot(space.alpha(level) * DEVIATION, level) for level in (sigma, sigma_next)]
    return space.alpha(sigma_next) * MEAN + (x - space.alpha(sigma) * MEAN) * (scales[1] / scales[0])


def toy(x, sigma):
    """A nonlinear denoiser for comparisons."""
    tanh = torch.tanh if isinstance(x, torch.Tensor) else np.tanh
    x0 = tanh(x / math.hypot(1, sigma)) * 1.5 - 0.2 * math.log1p(sigma)
    return Denoised(x0, x0 * 0.8 + 0.1)


def even_levels(space, high, low, steps):
    """Levels even in lambda."""
    ends = space.half_log_snr(high), space.half_log_snr(low)
    return tuple(space.sigma_of(value) for value in np.linspace(*ends, steps + 1))


def measured_order(sample, space, ends, steps, options):
    x = np.array([1.3, -2.0]) * max(ends[0], 1.0)
    errors = []
    for count in (steps, 2 * steps):
        sigmas = even_levels(space, *ends, count)
        ours = sample(gaussian(space), x, sigmas, space=space, **options)
        errors.append(np.abs(ours - flowed(space, x, sigmas[0], sigmas[-1])).max())
    return math.log2(errors[0] / errors[1])


def without_randomness(sampler):
    """The sampler's options, its random part switched off."""
    return {**sampler.options, **({"eta": 0.0} if "eta" in sampler.settings else {})}


def relative_moments(name, options, space, sigmas):
    """Mean and variance of the result relative to the exact ones at the last level, without sampling.

    For a Gaussian every sampler is affine in all its noise: component 0 gets none, each other one a single unit of
    one draw, of which the first is the start.
    """
    sampler = find_sampler(name)[0]
    draws = iter(np.eye(len(sigmas) + 1)[1:])
    spread = [math.hypot(space.alpha(sigma) * DEVIATION, sigma) for sigma in (sigmas[0], sigmas[-1])]
    x = next(draws) * spread[0] + space.alpha(sigmas[0]) * MEAN
    x = sampler.sample(gaussian(space), x, sigmas, noise=lambda now, then: next(draws), space=space,
                       **{**sampler.options, **options})
    return x[0] / (space.alpha(sigmas[-1]) * MEAN), ((x[1:] - x[0]) ** 2).sum() / spread[1] ** 2


def start(seed=0):
    return torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Repeated:
    """Noise of one seeded stream, in diffusers' and in our shape of the interface."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, sigma, sigma_next):
        return torch.randn(1, 2, 3, 3, generator=self.generator)


def run_diffusers(scheduler, x, sigmas=None, noise=None, **options):
    """A variance preserving scheduler over the toy; ``sigmas`` replaces the levels that it made for as many steps."""
    if sigmas is not None:
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[index])
        given = {"variance_noise": noise(sigma, 0)} if noise else {}
        x0 = toy(x * math.hypot(1, sigma), sigma).x0
        x = scheduler.step(x0, timestep, x, **options, **given).prev_sample
    return x


def run_exploding(scheduler, x, level_of, generator=None):
    """A variance exploding scheduler that predicts noise; ``level_of(scheduler)`` is where it asks the model."""
    options = {} if generator is None else {"generator": generator}
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(x, timestep)
        sigma = float(level_of(scheduler))
        x = scheduler.step((x - toy(x, sigma).x0) / sigma, timestep, x, **options).prev_sample
    return x
