import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.sampling.spaces import Space, flow_space, space_from_betas

SD = space_from_betas()


def test_the_default_table_is_stable_diffusions():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    expected = np.cumprod(1 - betas)
    np.testing.assert_allclose(SD.alphas_cumprod, expected, rtol=1e-12)
    np.testing.assert_allclose(SD.sigmas, np.sqrt((1 - expected) / expected), rtol=1e-12)
    assert SD.sigma_min == pytest.approx(0.0291675, abs=2e-6)
    assert SD.sigma_max == pytest.approx(14.614642, abs=2e-5)


def test_the_linear_table_is_diffusers():
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02).alphas_cumprod
    ours = space_from_betas("linear", 0.0001, 0.02).alphas_cumprod
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5)


def test_places_between_levels_are_linear_in_log_sigma():
    logs = np.log(SD.sigmas)
    sigmas = np.geomspace(SD.sigma_min, SD.sigma_max, 501)
    ours = [SD.sigma_to_t(sigma) for sigma in sigmas]
    np.testing.assert_allclose(ours, np.interp(np.log(sigmas), logs, np.arange(1000)), atol=1e-8)
    back = [SD.t_to_sigma(t) for t in np.linspace(0, 999, 700)]
    np.testing.assert_allclose(back, np.exp(np.interp(np.linspace(0, 999, 700), np.arange(1000), logs)), rtol=1e-12)


def test_places_are_clamped_to_the_table():
    assert SD.sigma_to_t(1e-9) == 0 and SD.sigma_to_t(0.0) == 0 and SD.sigma_to_t(1e9) == 999
    assert SD.t_to_sigma(-3) == SD.sigma_min and SD.t_to_sigma(5000) == SD.sigma_max


@settings(deadline=None)
@given(st.floats(0, 999), st.sampled_from([SD, flow_space(3.0)]))
def test_place_and_level_are_inverse(t, space):
    assert space.sigma_to_t(space.t_to_sigma(t)) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
@pytest.mark.parametrize("sigma", [0.03, 0.4, 0.99])
def test_a_perfect_network_gives_back_the_clean_latent(prediction, sigma, make):
    """Targets from Ho et al. 2020 (eps), Salimans and Ho 2022 (v, on the unit-variance input) and flow matching."""
    space = flow_space() if prediction == "flow" else space_from_betas(prediction=prediction)
    x0, noise = make([0.3, -1.2, 2.0]), make([-0.7, 0.1, 1.5])
    share = 1 / (1 + sigma**2)
    target = {
        "epsilon": noise,
        "v_prediction": noise * share**0.5 - x0 * (1 - share) ** 0.5,
        "flow": noise - x0,
    }[prediction]
    x = space.add_noise(x0, noise, sigma)
    np.testing.assert_allclose(np.asarray(space.denoised(x, target, sigma)), np.asarray(x0), atol=1e-6)
    back = np.asarray(space.output(x, space.denoised(x, target, sigma), sigma))
    np.testing.assert_allclose(back, np.asarray(target), rtol=1e-5, atol=1e-5)
    scaled = np.asarray(space.scale_input(x, sigma))
    expected = np.asarray(x) if prediction == "flow" else np.asarray(x0) * share**0.5 + np.asarray(noise) * (
        1 - share) ** 0.5
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


def test_flow_is_consistent_with_its_own_signal_to_noise():
    space = flow_space(shift=3.0)
    for sigma in (0.01, 0.5, 0.9):
        assert space.alpha(sigma) == 1 - sigma
        assert space.half_log_snr(sigma) == pytest.approx(math.log((1 - sigma) / sigma))
        assert space.sigma_of(space.half_log_snr(sigma)) == pytest.approx(sigma)
        assert space.timestep(sigma) == pytest.approx(1000 * sigma)
    assert space.half_log_snr(1.0) == -math.inf and space.half_log_snr(0.0) == math.inf
    assert space.sigma_max == 1.0


def test_the_shift_of_a_flow_is_diffusers():
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    np.testing.assert_allclose(flow_space(3.0).sigmas[::-1], theirs.sigmas.numpy(), rtol=1e-6)


def test_epsilon_levels_are_their_own_inverse_of_lambda():
    assert SD.sigma_of(SD.half_log_snr(2.5)) == pytest.approx(2.5)
    assert SD.timestep(SD.sigmas[500]) == 500


@pytest.mark.parametrize(("sigmas", "prediction"), [
    ((1.0,), "epsilon"), ((0.0, 1.0), "epsilon"), ((2.0, 1.0), "epsilon"), ((1.0, 1.0), "epsilon"),
    ((0.5, 1.5), "flow"), ((0.5, math.inf), "epsilon"), ((0.5, 1.0), "noise"),
])
def test_a_malformed_space_is_refused(sigmas, prediction):
    with pytest.raises(ValueError):
        Space(sigmas, prediction)


def test_an_unknown_beta_schedule_is_refused():
    with pytest.raises(ValueError, match="cosine"):
        space_from_betas("cosine")


def test_a_thinned_table_keeps_the_highest_level_and_tells_whole_timesteps():
    thin = SD.thinned(20)
    assert len(thin.sigmas) == 50 and thin.sigma_max == SD.sigma_max and thin.sigmas[0] == SD.sigmas[19]
    for place in (0, 13, 49):
        for factor in (0.999, 1.0, 1.001):
            assert thin.timestep(thin.sigmas[place] * factor) == 20 * place + 19
    assert thin.thinned(5).timestep(SD.sigmas[99]) == 99
    assert thin.denoised(3.0, 0.5, 2.0) == SD.denoised(3.0, 0.5, 2.0)
