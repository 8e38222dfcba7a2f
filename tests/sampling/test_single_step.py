import math

import numpy as np
import pytest
import torch

from modules.sampling.samplers import Denoised
from modules.sampling.schedules import find_schedule, schedule_sigmas
from modules.sampling.single_step import (
    dpm_2,
    euler,
    heun,
    heunpp2,
    heunpp2_calls,
    restart,
    restart_calls,
    restart_steps,
)
from tests.sampling.analytic import FLOW, SD, SD_CONFIG, Repeated, gaussian, run_exploding, start, toy


def test_euler_is_diffusers_with_and_without_churn():
    from diffusers import EulerDiscreteScheduler

    for churn in (0.0, 4.0):
        theirs = EulerDiscreteScheduler(**SD_CONFIG, use_karras_sigmas=True, prediction_type="sample")
        theirs.set_timesteps(9)
        sigmas = tuple(theirs.sigmas.tolist())
        gamma = min(churn / 9, math.sqrt(2) - 1)
        x = expected = start().float() * sigmas[0]
        generator = torch.Generator().manual_seed(5)
        for index, timestep in enumerate(theirs.timesteps):
            sigma, churned = sigmas[index], 0.5 <= sigmas[index] <= 9.0
            given_x = expected
            if churned and churn:
                again = torch.Generator().manual_seed(0)
                again.set_state(generator.get_state())
                noise = torch.randn(expected.shape, generator=again)
                given_x = expected + noise * 1.003 * sigma * math.sqrt((1 + gamma) ** 2 - 1)
            if churn and not churned:
                torch.randn(expected.shape, generator=generator)
            level = sigma * (1 + gamma) if churned else sigma
            # For "epsilon" diffusers forms its own derivative from the noisy latent that it churns itself.
            theirs.config.prediction_type = "epsilon"
            epsilon = (given_x - toy(given_x, level).x0) / level
            expected = theirs.step(epsilon, timestep, expected, s_churn=churn, s_tmin=0.5, s_tmax=9.0, s_noise=1.003,
                                   generator=generator if churn and churned else None).prev_sample
        ours = euler(toy, x, sigmas, noise=Repeated(5), space=SD, s_churn=churn, s_tmin=0.5, s_tmax=9.0, s_noise=1.003)
        torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)


def test_heun_is_diffusers():
    from diffusers import HeunDiscreteScheduler

    theirs = HeunDiscreteScheduler(**SD_CONFIG, use_karras_sigmas=True)
    theirs.set_timesteps(9)
    sigmas = tuple(dict.fromkeys(theirs.sigmas.tolist()))
    x = start() * sigmas[0]
    expected = run_exploding(theirs, x, lambda scheduler: scheduler.sigmas[scheduler.step_index])
    torch.testing.assert_close(heun(toy, x, sigmas, space=SD), expected, rtol=1e-5, atol=1e-5)


def test_dpm2_is_diffusers():
    from diffusers import KDPM2DiscreteScheduler

    theirs = KDPM2DiscreteScheduler(**SD_CONFIG, use_karras_sigmas=True)
    theirs.set_timesteps(9)
    sigmas = tuple(dict.fromkeys(theirs.sigmas.tolist()))

    def level_of(scheduler):
        first = scheduler.state_in_first_order
        return (scheduler.sigmas if first else scheduler.sigmas_interpol)[scheduler.step_index]

    x = start() * sigmas[0]
    expected = run_exploding(theirs, x, level_of)
    torch.testing.assert_close(dpm_2(toy, x, sigmas, space=SD), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sample", [euler, heun, dpm_2, heunpp2])
def test_noise_is_drawn_at_every_step_once_there_is_churn(sample):
    """k-diffusion draws before it looks at the range, so the stream moves on outside it too."""
    asked = []

    def noise(sigma, sigma_next):
        asked.append((sigma, sigma_next))
        return np.zeros(2)

    sample(toy, np.ones(2), (4.0, 2.0, 1.0, 0.0), noise=noise, space=SD, s_churn=1.0, s_tmin=1.5, s_tmax=3.0)
    assert asked == [(4.0, 2.0), (2.0, 1.0), (1.0, 0.0)]
    asked.clear()
    sample(toy, np.ones(2), (4.0, 2.0, 1.0, 0.0), noise=noise, space=SD)
    assert asked == []


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="s_chrun"):
        euler(toy, np.ones(2), (4.0, 0.0), space=SD, s_chrun=1.0)


def test_heunpp2_by_its_formula():
    """Three steps: of three slopes, of two and of one, each but the first weighted by sigma / (n sigma_0)."""
    sigmas = (8.0, 4.0, 1.0, 0.25)

    def d(x, sigma):
        return (x - toy(x, sigma).x0) / sigma

    x = np.array([3.0, -9.0])
    d1 = d(x, 8.0)
    x2 = x + d1 * (4.0 - 8.0)
    d2 = d(x2, 4.0)
    d3 = d(x2 + d2 * (1.0 - 4.0), 1.0)
    y = x + (4.0 - 8.0) * ((1 - 4 / 24 - 1 / 24) * d1 + 4 / 24 * d2 + 1 / 24 * d3)
    d1 = d(y, 4.0)
    d2 = d(y + d1 * (1.0 - 4.0), 1.0)
    y = y + (1.0 - 4.0) * ((1 - 1 / 16) * d1 + 1 / 16 * d2)
    y = y + (0.25 - 1.0) * d(y, 1.0)
    np.testing.assert_allclose(heunpp2(toy, x, sigmas, space=SD), y, rtol=1e-12)
    assert [heunpp2_calls(sigmas[:count], SD) for count in (1, 2, 3, 4)] == [0, 1, 3, 6]


@pytest.mark.parametrize(("steps", "again", "times"), [(20, 9, 1), (35, 9, 1), (36, 9, 2), (80, 20, 2)])
def test_restart_walks_from_two_to_a_tenth_again(steps, again, times):
    sigmas = schedule_sigmas(find_schedule("Karras"), steps, SD)
    made = restart_steps(sigmas, SD)
    assert len(made) == steps and restart_calls(sigmas, SD) == 2 * steps - 1
    jumps = [(before[1], after[0]) for before, after in zip(made, made[1:], strict=False) if before[1] != after[0]]
    ramp = np.linspace(0, 1, steps - again * times)
    outer = (sigmas[0] ** (1 / 7) + ramp * (sigmas[-2] ** (1 / 7) - sigmas[0] ** (1 / 7))) ** 7
    low, high = (outer[np.abs(outer - level).argmin()] for level in (0.1, 2.0))
    np.testing.assert_allclose(jumps, [(low, high)] * times)
    assert made[0][0] == pytest.approx(sigmas[0]) and made[-1][1] == 0


def test_restart_in_a_flow_walks_between_levels_of_the_same_snr():
    made = restart_steps(schedule_sigmas(find_schedule("Karras"), 100, FLOW), FLOW)
    jump = next((before[1], after[0]) for before, after in zip(made, made[1:], strict=False) if before[1] != after[0])
    assert jump == pytest.approx((0.1 / 1.1, 2 / 3), rel=0.05)


def test_a_short_restart_is_heun():
    sigmas = schedule_sigmas(find_schedule("Karras"), 19, SD)
    x = start() * sigmas[0]
    assert torch.equal(restart(toy, x, sigmas, space=SD), heun(toy, x, sigmas, space=SD))


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_restart_reproduces_mean_and_variance(space):
    """Every part of the walk is affine in its noise: one unit of each draw, the start among them, adds to it."""
    sigmas = schedule_sigmas(find_schedule("Karras"), 200, space)
    draws = iter(np.eye(4)[1:])
    x = next(draws) * math.hypot(space.alpha(sigmas[0]) * 0.6, sigmas[0]) + space.alpha(sigmas[0]) * 0.7
    x = restart(gaussian(space), x, sigmas, noise=lambda now, then: next(draws), space=space)
    assert x[0] == pytest.approx(0.7)
    # The last step, to 0, is the posterior mean, whose variance lacks that of the noise at the lowest level.
    lacking = 0.36 / (0.36 + (sigmas[-2] / space.alpha(sigmas[-2])) ** 2)
    assert ((x[1:] - x[0]) ** 2).sum() / 0.36 == pytest.approx(lacking, abs=1e-3)


def test_churn_or_restart_without_noise_says_so():
    for sample in (euler, heun, dpm_2, heunpp2):
        with pytest.raises(ValueError, match="source of noise"):
            sample(toy, np.ones(2), (4.0, 2.0, 0.0), space=SD, s_churn=1.0)
    with pytest.raises(ValueError, match="source of noise"):
        restart(lambda x, sigma: Denoised(x), np.ones(2), schedule_sigmas(find_schedule("Karras"), 20, SD), space=SD)
