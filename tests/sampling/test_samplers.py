import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.sampling.noise import brownian_noise
from modules.sampling.samplers import (
    SAMPLERS,
    Denoised,
    ancestral_step,
    ddim,
    dpmpp_2m,
    dpmpp_sde,
    euler,
    euler_ancestral,
    find_sampler,
    unipc,
)
from modules.sampling.schedules import find_schedule, schedule_sigmas
from modules.sampling.spaces import flow_space, space_from_betas

SD, FLOW = space_from_betas(), flow_space()
MEAN, DEVIATION = 0.7, 0.6
SD_CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def gaussian(space):
    """The exact denoiser of x0 ~ N(MEAN, DEVIATION^2): the posterior mean given x = alpha x0 + sigma noise."""

    def denoise(x, sigma):
        alpha, variance = space.alpha(sigma), DEVIATION**2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return Denoised((x - alpha * MEAN) * gain + MEAN)

    return denoise


def flowed(space, x, sigma, sigma_next):
    """The exact solution of the probability flow: the standardised latent does not change."""
    scales = [math.hypot(space.alpha(level) * DEVIATION, level) for level in (sigma, sigma_next)]
    return space.alpha(sigma_next) * MEAN + (x - space.alpha(sigma) * MEAN) * (scales[1] / scales[0])


def toy(x, sigma):
    """A nonlinear denoiser for comparisons."""
    tanh = torch.tanh if isinstance(x, torch.Tensor) else np.tanh
    return Denoised(tanh(x / math.hypot(1, sigma)) * 1.5 - 0.2 * math.log1p(sigma))


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


@pytest.mark.parametrize(("space", "ends"), [(SD, (3.0, 0.5)), (FLOW, (0.97, 0.2))], ids=["epsilon", "flow"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_every_sampler_has_its_declared_global_order(sampler, space, ends):
    """From pure start-up to a level above 0, any randomness switched off."""
    options = {"eta": 0.0} if "eta" in sampler.settings else {}
    assert measured_order(sampler.sample, space, ends, 256, options) == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize(("order", "expected"), [(1, 2), (2, 3), (3, 3)])
def test_unipc_of_full_order_to_the_end(variant, order, expected):
    """UniPC-p is of order p + 1 but for its start-up and its last, uncorrected step (Zhao et al. 2023, 3.3).

    A Gaussian may cancel error terms, so the order is a lower bound.
    """
    options = {"order": order, "variant": variant, "lower_order_final": False}
    assert measured_order(unipc, FLOW, (0.97, 0.2), 128, options) > expected - 0.15


def test_unipcs_vary_coeff_is_of_first_order_as_its_authors_program_is():
    options = {"order": 3, "variant": "vary_coeff"}
    assert measured_order(unipc, FLOW, (0.97, 0.2), 256, options) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_tensors_and_arrays_give_the_same(sampler):
    sigmas = schedule_sigmas(find_schedule("Karras"), 7, SD)
    options = {"eta": 0.0} if "eta" in sampler.settings else {}
    x = np.random.default_rng(0).normal(size=(2, 4)) * sigmas[0]
    arrays = sampler.sample(toy, x, sigmas, space=SD, **options)
    tensors = sampler.sample(toy, torch.from_numpy(x), sigmas, space=SD, **options)
    np.testing.assert_allclose(tensors.numpy(), arrays, rtol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_sampler_reaches_the_mean_of_a_point(sampler, space, steps):
    """Where the clean latent is the same everywhere, every method is exact, from pure noise to sigma 0."""
    sigmas = schedule_sigmas(find_schedule("Simple"), steps, space)
    generator = np.random.default_rng(1)

    def noise(sigma, sigma_next):
        return generator.normal(size=5)

    x = sampler.sample(lambda x, sigma: Denoised(x * 0 + MEAN), noise(1, 0), sigmas, noise=noise, space=space)
    np.testing.assert_allclose(x, MEAN, atol=1e-9)


def run_diffusers(scheduler, x, sigmas=None, **options):
    """A diffusers scheduler over the toy denoiser; ``sigmas`` replaces the levels that it made for as many steps."""
    if sigmas is not None:
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[index])
        signal = 1 / math.hypot(1, sigma)
        x = scheduler.step(toy(x / signal, sigma).x0, timestep, x, **options).prev_sample
    return x


def start(seed=0):
    return torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("lower_order_final", [True, False])
def test_unipc_is_diffusers(variant, order, lower_order_final):
    from diffusers import UniPCMultistepScheduler

    sigmas = even_levels(SD, 12.0, 0.03, 11)
    theirs = UniPCMultistepScheduler(**SD_CONFIG, solver_order=order, solver_type=variant, prediction_type="sample",
                                     lower_order_final=lower_order_final)
    x = start()
    expected = run_diffusers(theirs, x, sigmas) * math.hypot(1, sigmas[-1])
    ours = unipc(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD, order=order, variant=variant,
                 lower_order_final=lower_order_final)
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)


def test_dpmpp_2m_is_diffusers():
    from diffusers import DPMSolverMultistepScheduler

    sigmas = schedule_sigmas(find_schedule("Karras"), 11, SD)
    theirs = DPMSolverMultistepScheduler(**SD_CONFIG, solver_order=2, algorithm_type="dpmsolver++",
                                         final_sigmas_type="zero", prediction_type="sample")
    x = start()
    ours = dpmpp_2m(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD)
    torch.testing.assert_close(ours, run_diffusers(theirs, x, sigmas), rtol=2e-5, atol=2e-5)


class Repeated:
    """Noise of one seeded stream, in diffusers' and in our shape of the interface."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, sigma, sigma_next):
        return torch.randn(1, 2, 3, 3, generator=self.generator)


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


def test_euler_ancestral_is_diffusers():
    from diffusers import EulerAncestralDiscreteScheduler

    theirs = EulerAncestralDiscreteScheduler(**SD_CONFIG, timestep_spacing="linspace")
    theirs.set_timesteps(10)
    sigmas = tuple(theirs.sigmas.tolist())
    x = expected = start().float() * sigmas[0]
    generator = torch.Generator().manual_seed(3)
    for index, timestep in enumerate(theirs.timesteps):
        theirs.is_scale_input_called = True
        epsilon = (expected - toy(expected, sigmas[index]).x0) / sigmas[index]
        expected = theirs.step(epsilon, timestep, expected, generator=generator).prev_sample
    ours = euler_ancestral(toy, x, sigmas, noise=Repeated(3), space=SD)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_is_diffusers(eta):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**SD_CONFIG, timestep_spacing="leading", steps_offset=1, clip_sample=False,
                           set_alpha_to_one=False, prediction_type="sample")
    theirs.set_timesteps(20)
    sigmas = tuple(SD.sigmas[timestep] for timestep in theirs.timesteps)
    x = expected = start().float()
    noise = Repeated(4)
    for timestep, sigma in zip(theirs.timesteps[:-1], sigmas, strict=False):
        fresh = noise(0, 0) if eta else None
        x0 = toy(expected * math.hypot(1, sigma), sigma).x0
        expected = theirs.step(x0, timestep, expected, eta=eta, variance_noise=fresh).prev_sample
    ours = ddim(toy, x * math.hypot(1, sigmas[0]), sigmas, noise=Repeated(4), space=SD, eta=eta)
    torch.testing.assert_close(ours / math.hypot(1, sigmas[-1]), expected, rtol=1e-4, atol=1e-4)


def test_dpmpp_sde_is_diffusers():
    from diffusers import DPMSolverSDEScheduler

    theirs = DPMSolverSDEScheduler(**SD_CONFIG, use_karras_sigmas=True, prediction_type="epsilon", noise_sampler_seed=9)
    theirs.set_timesteps(8)
    sigmas = (*theirs.sigmas[:-1].tolist()[::2], 0.0)
    x = expected = start().float()[0] * sigmas[0]
    for timestep in theirs.timesteps:
        first = theirs.state_in_first_order
        theirs.scale_model_input(expected, timestep)
        sigma = float(theirs.sigmas[theirs.step_index] if first else theirs.mid_point_sigma)
        epsilon = (expected - toy(expected, sigma).x0) / sigma
        expected = theirs.step(epsilon, timestep, expected, s_noise=1.01).prev_sample
    noise = brownian_noise(tuple(x.shape), [9], (sigmas[-2], sigmas[0]))
    ours = dpmpp_sde(toy, x[None], sigmas, noise=noise, space=SD, s_noise=1.01)
    torch.testing.assert_close(ours[0], expected, rtol=2e-4, atol=2e-4)


def relative_moments(sampler, options, space, sigmas):
    """Mean and variance of the result relative to the exact ones at the last level, without sampling.

    For a Gaussian every sampler is affine in all its noise: component 0 gets none, each other one a single unit of
    one draw, of which the first is the start.
    """
    draws = iter(np.eye(len(sigmas) + 1)[1:])
    spread = [math.hypot(space.alpha(sigma) * DEVIATION, sigma) for sigma in (sigmas[0], sigmas[-1])]
    x = next(draws) * spread[0] + space.alpha(sigmas[0]) * MEAN
    x = sampler.sample(gaussian(space), x, sigmas, noise=lambda now, then: next(draws), space=space, **options)
    return x[0] / (space.alpha(sigmas[-1]) * MEAN), ((x[1:] - x[0]) ** 2).sum() / spread[1] ** 2


@pytest.mark.parametrize(("name", "options"), [
    ("Euler a", {}), ("Euler a", {"eta": 0.5}), ("DDIM", {"eta": 1.0}), ("Euler", {"s_churn": 20.0}),
])
@pytest.mark.parametrize(("space", "ends"), [(SD, (14.0, 0.05)), (FLOW, (0.99, 0.05))], ids=["epsilon", "flow"])
def test_samplers_with_independent_noise_converge_to_mean_and_variance(name, options, space, ends):
    errors = []
    for steps in (200, 400, 800):
        mean, variance = relative_moments(find_sampler(name)[0], options, space, even_levels(space, *ends, steps))
        assert mean == pytest.approx(1, abs=1e-9)
        errors.append(variance - 1)
    assert 2 * errors[2] - errors[1] == pytest.approx(0, abs=1e-3)  # Richardson: the error of first order taken off
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1) and errors[1] / errors[2] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("options", [{}, {"eta": 0.5}])
@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_dpmpp_sde_reproduces_mean_and_variance_along_a_brownian_path(options, space):
    """40,000 pixels: standard errors are 0.003 of the mean and 0.7 % of the variance."""
    sigmas = schedule_sigmas(find_schedule("Karras" if space is SD else "SGM Uniform"), 60, space)
    shape = (1, 200, 200)
    noise = brownian_noise(shape, [1], (sigmas[-2], sigmas[0]))
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * sigmas[0]
    x = dpmpp_sde(gaussian(space), x + space.alpha(sigmas[0]) * MEAN, sigmas, noise=noise, space=space, **options)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.012)
    assert x.var().item() == pytest.approx(DEVIATION**2, rel=0.03)


@settings(deadline=None)
@given(st.floats(0.02, 0.98), st.floats(0.01, 0.99), st.floats(0, 1.5), st.sampled_from([SD, FLOW]))
def test_an_ancestral_step_keeps_the_noise_level(sigma, share, eta, space):
    sigma_next = sigma * share
    down, up = ancestral_step(space, sigma, sigma_next, eta)
    assert math.hypot(down, up) == pytest.approx(sigma_next)
    if space is SD:  # k-diffusion's own formula
        expected = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
        assert up == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SAMPLERS), st.sampled_from(["Karras", "Normal", "Simple", "DDIM"]), st.integers(1, 25),
       st.fixed_dictionaries({"eta": st.floats(0, 1), "s_noise": st.floats(0, 1.1), "s_churn": st.floats(0, 100),
                              "s_tmin": st.floats(0, 10), "s_tmax": st.floats(0, 999), "order": st.integers(1, 5),
                              "variant": st.sampled_from(["bh1", "bh2", "vary_coeff"]),
                              "lower_order_final": st.booleans()}),
       st.sampled_from([SD, FLOW]))
def test_no_option_makes_a_sampler_diverge(sampler, schedule, steps, options, space):
    sigmas = schedule_sigmas(find_schedule(schedule), steps, space)
    generator = np.random.default_rng(0)
    given_options = {name: options[name] for name in sampler.settings}
    x = sampler.sample(gaussian(space), generator.normal(size=8) * sigmas[0], sigmas,
                       noise=lambda sigma, sigma_next: generator.normal(size=8), space=space, **given_options)
    assert np.isfinite(x).all() and np.abs(x).max() < 50


def test_noise_is_drawn_at_every_step_once_there_is_churn():
    """k-diffusion draws before it looks at the range, so the stream moves on outside it too."""
    asked = []

    def noise(sigma, sigma_next):
        asked.append((sigma, sigma_next))
        return np.zeros(2)

    euler(toy, np.ones(2), (4.0, 2.0, 1.0, 0.0), noise=noise, space=SD, s_churn=1.0, s_tmin=1.5, s_tmax=3.0)
    assert asked == [(4.0, 2.0), (2.0, 1.0), (1.0, 0.0)]
    asked.clear()
    euler(toy, np.ones(2), (4.0, 2.0, 1.0, 0.0), noise=noise, space=SD)
    assert asked == []


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="s_chrun"):
        euler(toy, np.ones(2), (4.0, 0.0), space=SD, s_chrun=1.0)


def test_a_stochastic_sampler_without_noise_says_so():
    for sample in (euler_ancestral, dpmpp_sde):
        with pytest.raises(ValueError, match="source of noise"):
            sample(toy, np.ones(2), (4.0, 2.0, 0.0), space=SD)
    with pytest.raises(ValueError, match="source of noise"):
        euler(toy, np.ones(2), (4.0, 2.0, 0.0), space=SD, s_churn=1.0)


def test_no_levels_change_nothing():
    for sampler in SAMPLERS:
        assert sampler.sample(toy, 3.0, (2.0,), space=SD) == 3.0


@pytest.mark.parametrize(("name", "sampler", "schedule"), [
    ("Euler a", "Euler a", None), ("euler A", "Euler a", None), ("k_euler_ancestral", "Euler a", None),
    ("DPM++ 2M Karras", "DPM++ 2M", "Karras"), ("dpm++ sde karras", "DPM++ SDE", "Karras"),
    ("DPM++ 2M SGM Uniform", "DPM++ 2M", "SGM Uniform"), ("DPM++ 2M SGMUniform", "DPM++ 2M", "SGM Uniform"),
    ("DPM++ SDE Exponential", "DPM++ SDE", "Exponential"), ("k_dpmpp_2m_ka", "DPM++ 2M", "Karras"),
    ("k_dpmpp_sde_ka", "DPM++ SDE", "Karras"), ("Euler DDIM", "Euler", "DDIM"), ("DDIM", "DDIM", None),
    ("  UniPC ", "UniPC", None), ("Euler automatic", "Euler", "Automatic"),
    ("Euler sgm_uniform", "Euler", "SGM Uniform"),
])
def test_samplers_are_found_by_label_alias_and_older_names(name, sampler, schedule):
    found, label = find_sampler(name)
    assert (found.name, label) == (sampler, schedule)


@pytest.mark.parametrize("name", ["Eulr", "Euler Karas", "", "Karras", "x" * 100_000])
def test_an_unknown_sampler_is_refused(name):
    with pytest.raises(InvalidRequest, match="There is no sampler") as caught:
        find_sampler(name)
    assert "Euler" in caught.value.hint and len(str(caught.value)) < 400


def test_the_labels_are_those_of_infotexts():
    assert [sampler.name for sampler in SAMPLERS] == ["DPM++ 2M", "DPM++ SDE", "Euler a", "Euler", "DDIM", "UniPC"]
    names = [name for sampler in SAMPLERS for name in (sampler.name.lower(), *sampler.aliases)]
    assert len(set(names)) == len(names) - 2  # "ddim" and "unipc" are alias and label in one
