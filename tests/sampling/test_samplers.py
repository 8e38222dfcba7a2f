import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.sampling.samplers import SAMPLERS, Denoised, find_sampler
from modules.sampling.schedules import find_schedule, schedule_sigmas
from tests.sampling.analytic import FLOW, MEAN, SD, gaussian, measured_order, toy, without_randomness

SOLVERS = [sampler for sampler in SAMPLERS if sampler.order]
A1111 = ("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler",
         "LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC",
         "LCM")


def by_name(sampler):
    return sampler.name


@pytest.mark.parametrize("sampler", SOLVERS, ids=by_name)
def test_every_sampler_has_its_declared_global_order(sampler):
    """From the start-up to a level above 0, any randomness switched off."""
    options = without_randomness(sampler)
    assert measured_order(sampler.sample, SD, (3.0, 0.5), 768, options) == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("sampler", SOLVERS, ids=by_name)
def test_every_sampler_has_at_least_its_order_on_a_flow(sampler):
    """A Gaussian may cancel error terms, so the order is a lower bound."""
    assert measured_order(sampler.sample, FLOW, (0.95, 0.5), 192, without_randomness(sampler)) > sampler.order - 0.15


def levels(sampler, schedule, steps, space):
    """The levels of a schedule as the sampler wants them."""
    sigmas = schedule_sigmas(find_schedule(schedule), steps, space)
    return (*sigmas[:-1], space.sigma_min) if sampler.kind == "ends" else sigmas


@pytest.mark.parametrize("sampler", SAMPLERS, ids=by_name)
def test_tensors_and_arrays_give_the_same(sampler):
    sigmas = levels(sampler, "Karras", 21, SD)
    x = np.random.default_rng(0).normal(size=(2, 4)) * sigmas[0]
    options = without_randomness(sampler)
    arrays = sampler.sample(toy, x, sigmas, space=SD, noise=lambda now, then: np.ones(4), **options)
    tensors = sampler.sample(toy, torch.from_numpy(x), sigmas, space=SD,
                             noise=lambda now, then: torch.ones(4, dtype=torch.float64), **options)
    np.testing.assert_allclose(tensors.numpy(), arrays, rtol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=by_name)
@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 40])
def test_every_sampler_reaches_the_mean_of_a_point(sampler, space, steps):
    """Where the clean latent is the same everywhere, every method is exact, from pure noise to sigma 0.

    What ends above 0 keeps the noise of its end; a consistency function keeps a little of the noisy latent.
    """
    sigmas = levels(sampler, "Turbo", steps, space)
    generator = np.random.default_rng(1)

    def noise(sigma, sigma_next):
        return generator.normal(size=5)

    def point(x, sigma):
        return Denoised(x * 0 + MEAN, x * 0 + MEAN)

    x = sampler.sample(point, space.add_noise(MEAN, noise(1, 0), sigmas[0]), sigmas, noise=noise, space=space)
    tolerance = {"ends": 4 * sigmas[-1]}.get(sampler.kind, 1e-3 if sampler.name == "LCM" else 1e-9)
    np.testing.assert_allclose(x, space.alpha(sigmas[-1]) * MEAN, atol=tolerance)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SAMPLERS), st.sampled_from(["Karras", "Normal", "Simple", "DDIM", "KL Optimal"]),
       st.integers(1, 45),
       st.fixed_dictionaries({"eta": st.floats(0, 1), "s_noise": st.floats(0, 1.1), "s_churn": st.floats(0, 100),
                              "s_tmin": st.floats(0, 10), "s_tmax": st.floats(0, 999), "order": st.integers(1, 5),
                              "variant": st.sampled_from(["bh1", "bh2", "vary_coeff"]),
                              "lower_order_final": st.booleans()}),
       st.sampled_from([SD, FLOW]))
def test_no_option_makes_a_sampler_diverge(sampler, schedule, steps, options, space):
    sigmas = levels(sampler, schedule, steps, space)
    generator = np.random.default_rng(0)
    given_options = {**sampler.options, **{name: options[name] for name in sampler.settings}}
    x = sampler.sample(gaussian(space), generator.normal(size=8) * sigmas[0], sigmas,
                       noise=lambda sigma, sigma_next: generator.normal(size=8), space=space, **given_options)
    assert np.isfinite(x).all() and np.abs(x).max() < 50


def test_no_levels_change_nothing():
    for sampler in SAMPLERS:
        assert sampler.sample(toy, 3.0, (2.0,), space=SD) == 3.0


def test_a_sampler_that_declares_no_noise_draws_none():
    for sampler in SAMPLERS:
        if sampler.noise == "none":
            x = sampler.sample(toy, np.ones(2), levels(sampler, "Karras", 21, SD), space=SD, noise=None)
            assert np.isfinite(x).all()


def test_only_those_that_say_so_read_the_unguided_prediction():
    for sampler in SAMPLERS:
        if not sampler.needs_uncond:
            sampler.sample(lambda x, sigma: Denoised(x * 0.5), np.ones(2), levels(sampler, "Karras", 21, SD), space=SD,
                           noise=lambda now, then: np.ones(2))


@pytest.mark.parametrize(("name", "sampler", "schedule"), [
    ("Euler a", "Euler a", None), ("euler A", "Euler a", None), ("k_euler_ancestral", "Euler a", None),
    ("DPM++ 2M Karras", "DPM++ 2M", "Karras"), ("dpm++ sde karras", "DPM++ SDE", "Karras"),
    ("DPM++ 2M SGM Uniform", "DPM++ 2M", "SGM Uniform"), ("DPM++ 2M SGMUniform", "DPM++ 2M", "SGM Uniform"),
    ("DPM++ SDE Exponential", "DPM++ SDE", "Exponential"), ("k_dpmpp_2m_ka", "DPM++ 2M", "Karras"),
    ("k_dpmpp_sde_ka", "DPM++ SDE", "Karras"), ("Euler DDIM", "Euler", "DDIM"), ("DDIM", "DDIM", None),
    ("  UniPC ", "UniPC", None), ("Euler automatic", "Euler", "Automatic"),
    ("Euler sgm_uniform", "Euler", "SGM Uniform"), ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "Exponential"),
    ("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun", "Karras"), ("DPM++ 3M SDE Karras", "DPM++ 3M SDE", "Karras"),
    ("DPM++ 2S a Karras", "DPM++ 2S a", "Karras"), ("LMS Karras", "LMS", "Karras"),
    ("DPM2 a Karras", "DPM2 a", "Karras"), ("k_dpm_2_a_ka", "DPM2 a", "Karras"),
    ("k_dpmpp_2m_sde_exp", "DPM++ 2M SDE", "Exponential"),
    ("DDIM CFG++", "DDIM CFG++", None), ("Heun align_your_steps_gits", "Heun", "Align Your Steps GITS"),
])
def test_samplers_are_found_by_label_alias_and_older_names(name, sampler, schedule):
    found, label = find_sampler(name)
    assert (found.name, label) == (sampler, schedule)


@pytest.mark.parametrize("name", ["Eulr", "Euler Karas", "", "Karras", "x" * 100_000])
def test_an_unknown_sampler_is_refused(name):
    with pytest.raises(InvalidRequest, match="There is no sampler") as caught:
        find_sampler(name)
    assert "Euler" in caught.value.hint and len(str(caught.value)) < 600


def test_names_are_those_of_infotexts_in_their_order_and_each_finds_its_own():
    names = [sampler.name for sampler in SAMPLERS]
    assert [name for name in names if name in A1111] == [name for name in A1111 if name in names]
    for sampler in SAMPLERS:
        for name in (sampler.name, *sampler.aliases):
            assert find_sampler(name) == (sampler, None)


@pytest.mark.parametrize(("names", "flag"), [
    (("DPM++ SDE", "DPM++ 2S a", "Heun", "DPM2", "DPM2 a", "Restart", "HeunPP2"), "second_order"),
    (("DPM++ 3M SDE", "DPM2", "DPM2 a"), "discard_penultimate"),
    (("DPM++ 2S a", "Euler a", "DPM2 a", "DPM fast", "DPM adaptive", "Euler a CFG++"),
     "uses_ensd"),
    (("DDIM CFG++", "Euler CFG++", "Euler a CFG++", "DPM++ 2M CFG++"), "needs_uncond"),
])
def test_the_flags_are_a1111s(names, flag):
    assert tuple(sampler.name for sampler in SAMPLERS if getattr(sampler, flag)) == names


def test_brownian_noise_and_default_schedules_are_a1111s():
    brownian = [sampler.name for sampler in SAMPLERS if sampler.noise == "brownian"]
    assert brownian == ["DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"]
    own = {sampler.name: sampler.schedule for sampler in SAMPLERS if sampler.name in A1111 and sampler.schedule}
    assert own == {"DPM++ 2M": "karras", "DPM++ SDE": "karras", "DPM++ 2M SDE": "exponential",
                   "DPM++ 2M SDE Heun": "exponential", "DPM++ 2S a": "karras", "DPM++ 3M SDE": "exponential",
                   "DPM2": "karras", "DPM2 a": "karras", "Restart": "karras"}
