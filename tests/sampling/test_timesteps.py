import numpy as np
import pytest
from diffusers import DDIMScheduler

from modules.sampling.spaces import flow_space, space_from_betas
from modules.sampling.timesteps import spaced_timesteps, unipc_levels, visited_levels

SD = space_from_betas()


@pytest.mark.parametrize("steps", [2, 4, 20, 50, 250])
def test_timesteps_are_diffusers_leading_ones(steps):
    scheduler = DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(steps)
    assert spaced_timesteps(steps)[::-1] == tuple(scheduler.timesteps.tolist())


def test_where_steps_do_not_divide_there_are_more():
    assert len(spaced_timesteps(30)) == 31 and spaced_timesteps(30)[:2] == (1, 34)
    assert len(spaced_timesteps(600)) == 1000 and max(spaced_timesteps(600)) == 999


def test_one_step_goes_from_the_top_to_the_bottom():
    assert spaced_timesteps(1) == (1, 999)
    assert visited_levels(SD, (1, 999)) == (SD.sigmas[999], SD.sigmas[1])


def log_alpha_at(time):
    return np.interp(time, (np.arange(1000) + 1) / 1000, 0.5 * np.log(SD.alphas_cumprod))


@pytest.mark.parametrize(("skip_type", "times"), [
    ("time_uniform", np.linspace(1, 0.001, 21)), ("time_quadratic", np.linspace(1, 0.001**0.5, 21) ** 2),
])
def test_unipcs_levels_are_linear_in_log_alpha(skip_type, times):
    """NoiseScheduleVP of DPM-Solver: log alpha is linear in time between the training timesteps."""
    alpha = np.exp(log_alpha_at(times))
    ours = unipc_levels(SD, spaced_timesteps(20), skip_type=skip_type)
    np.testing.assert_allclose(ours, np.sqrt(1 - alpha**2) / alpha, rtol=1e-9)


def test_unipcs_levels_even_in_lambda():
    expected = np.geomspace(SD.sigma_max, SD.sigma_min, 21)
    np.testing.assert_allclose(unipc_levels(SD, spaced_timesteps(20), skip_type="logSNR"), expected, rtol=1e-12)


@pytest.mark.parametrize("skip_type", ["time_uniform", "time_quadratic", "logSNR"])
@pytest.mark.parametrize("space", [SD, flow_space()])
def test_a_truncated_run_begins_at_its_last_timestep(skip_type, space):
    levels = unipc_levels(space, spaced_timesteps(20)[:7], truncated=True, skip_type=skip_type)
    assert len(levels) == 8
    assert levels[0] == pytest.approx(space.sigmas[301], rel=1e-6)
    assert levels[-1] == pytest.approx(space.sigma_min, rel=1e-6)
    assert list(levels) == sorted(levels, reverse=True)


def test_levels_even_in_lambda_begin_at_the_pure_noise_of_a_flow():
    levels = unipc_levels(flow_space(), spaced_timesteps(20), skip_type="logSNR")
    assert levels[0] == 1.0 and levels[-1] == pytest.approx(0.001)
    half_log_snr = np.log((1 - np.array(levels[1:])) / levels[1:])
    np.testing.assert_allclose(np.diff(half_log_snr), half_log_snr[1] - half_log_snr[0])
