import math

import numpy as np
import pytest
import torch

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
from tests.sampling.analytic import (
    FLOW,
    SD,
    SD_CONFIG,
    Repeated,
    even_levels,
    relative_moments,
    run_exploding,
    start,
    toy,
)

LEADING = {"timestep_spacing": "leading", "steps_offset": 1}


def test_euler_ancestral_is_diffusers():
    from diffusers import EulerAncestralDiscreteScheduler

    theirs = EulerAncestralDiscreteScheduler(**SD_CONFIG, timestep_spacing="linspace")
    theirs.set_timesteps(10)
    sigmas = tuple(theirs.sigmas.tolist())
    x = start().float() * sigmas[0]
    expected = run_exploding(theirs, x, lambda scheduler: scheduler.sigmas[scheduler.step_index],
                             torch.Generator().manual_seed(3))
    ours = euler_ancestral(toy, x, sigmas, noise=Repeated(3), space=SD)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_dpm2_ancestral_is_diffusers():
    from diffusers import KDPM2AncestralDiscreteScheduler

    theirs = KDPM2AncestralDiscreteScheduler(**SD_CONFIG, use_karras_sigmas=True)
    theirs.set_timesteps(9)
    sigmas = tuple(dict.fromkeys(theirs.sigmas.tolist()))

    def level_of(scheduler):
        if scheduler.state_in_first_order:
            return scheduler.sigmas[scheduler.step_index]
        return scheduler.sigmas_interpol[scheduler.step_index - 1]

    x = start().float() * sigmas[0]
    expected = run_exploding(theirs, x, level_of, torch.Generator().manual_seed(6))
    ours = dpm_2_ancestral(toy, x, sigmas, noise=Repeated(6), space=SD)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_is_diffusers(eta):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**SD_CONFIG, **LEADING, clip_sample=False, set_alpha_to_one=False,
                           prediction_type="sample")
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


def run_on_timesteps(theirs, x, generator, **options):
    """A scheduler that counts in timesteps, over the toy."""
    for timestep in theirs.timesteps:
        sigma = SD.sigmas[timestep]
        x0 = toy(x * math.hypot(1, sigma), sigma).x0
        x = theirs.step(x0, timestep, x, generator=generator, **options).prev_sample
    return x


def test_ddpm_is_diffusers():
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(**SD_CONFIG, **LEADING, clip_sample=False, prediction_type="sample")
    theirs.set_timesteps(20)
    sigmas = (*(SD.sigmas[timestep] for timestep in theirs.timesteps), 0.0)
    x = start().float()
    generator = torch.Generator().manual_seed(8)
    expected = run_on_timesteps(theirs, x, generator)
    ours = ddpm(toy, x * math.hypot(1, sigmas[0]), sigmas, noise=Repeated(8), space=SD)
    # In the last step diffusers adds noise of variance 1e-20.
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_lcm_is_diffusers():
    from diffusers import LCMScheduler

    theirs = LCMScheduler(**SD_CONFIG, clip_sample=False, prediction_type="sample")
    theirs.set_timesteps(4)
    sigmas = (*(SD.sigmas[timestep] for timestep in theirs.timesteps), 0.0)
    x = start().float()
    generator = torch.Generator().manual_seed(1)
    expected = x
    for timestep, sigma in zip(theirs.timesteps, sigmas, strict=False):
        x0 = toy(expected * math.hypot(1, sigma), sigma).x0
        # Theirs skips with the variance preserving latent, A1111 with the one that the noise was added to: the
        # factor, below 1e-5 at these timesteps, is all the difference.
        expected = theirs.step(x0, timestep, expected, generator=generator).prev_sample
    ours = lcm(toy, x * math.hypot(1, sigmas[0]), sigmas, noise=Repeated(1), space=SD)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_lcm_by_its_formula(space):
    """c_skip = s^2 / ((10 t)^2 + s^2), c_out = 10 t / sqrt((10 t)^2 + s^2), s = 1/2 (Luo et al. 2023, equation 9)."""
    first, last = space.sigmas[899], space.sigmas[19]
    x, fresh = np.array([2.0, -1.0]), np.array([0.3, -0.6])
    ours = lcm(toy, x, (first, last, 0.0), noise=lambda now, then: fresh, space=space)
    for sigma, t in ((first, 899 + (space is FLOW)), (last, 19 + (space is FLOW))):
        c_skip, c_out = 0.25 / (100 * t**2 + 0.25), 10 * t / math.sqrt(100 * t**2 + 0.25)
        x = c_out * toy(x, sigma).x0 + c_skip * x
        if sigma == first:
            x = (1 - last if space is FLOW else 1) * x + last * fresh
    np.testing.assert_allclose(ours, x, rtol=1e-12)


def test_lcm_has_the_levels_and_timesteps_of_its_training():
    """As A1111's LCM denoiser: timesteps 19, 39 ... 999, told to the network whole."""
    space = consistency_space(SD)
    assert space.sigmas == SD.sigmas[19::20]
    assert [space.timestep(sigma) for sigma in (space.sigmas[0], space.sigmas[7], space.sigmas[49])] == [19, 159, 999]
    between = math.sqrt(space.sigmas[30] * space.sigmas[31])
    assert space.timestep(between * 0.999) == 619 and space.timestep(between * 1.001) == 639
    assert consistency_space(FLOW) is FLOW


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd_is_diffusers(eta):
    from diffusers import TCDScheduler

    theirs = TCDScheduler(**SD_CONFIG, clip_sample=False, prediction_type="sample")
    theirs.set_timesteps(4)
    sigmas = (*(SD.sigmas[timestep] for timestep in theirs.timesteps), 0.0)
    x = start().float()
    expected, generator = x, torch.Generator().manual_seed(2)
    for timestep, sigma in zip(theirs.timesteps[:-1], sigmas, strict=False):
        x0 = toy(expected * math.hypot(1, sigma), sigma).x0
        expected = theirs.step(x0, timestep, expected, eta=eta, generator=generator).prev_sample
    ours = tcd(toy, x * math.hypot(1, sigmas[0]), sigmas[:-1], noise=Repeated(2), space=SD, eta=eta)
    torch.testing.assert_close(ours / math.hypot(1, sigmas[-2]), expected, rtol=1e-4, atol=1e-4)


def test_tcd_ends_in_the_clean_latent():
    x = np.array([2.0, -1.0])
    np.testing.assert_allclose(tcd(toy, x, (1.5, 0.0), space=SD), toy(x, 1.5).x0)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_dpmpp_2s_by_its_formula(eta):
    """k-diffusion's formula in logarithms, one step."""
    sigma, sigma_next, x, fresh = 5.0, 2.0, np.array([4.0, -3.0]), np.array([0.5, 0.25])
    up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    down = math.sqrt(sigma_next**2 - up**2)
    t, t_next = -math.log(sigma), -math.log(down)
    h, s = t_next - t, t + (t_next - t) / 2
    inner = math.exp(-s) / math.exp(-t) * x - math.expm1(-h / 2) * toy(x, sigma).x0
    expected = math.exp(-t_next) / math.exp(-t) * x - math.expm1(-h) * toy(inner, math.exp(-s)).x0 + fresh * up * 1.01
    ours = dpmpp_2s_ancestral(toy, x, (sigma, sigma_next), noise=lambda now, then: fresh, space=SD, eta=eta,
                              s_noise=1.01)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "options", "order"), [
    ("Euler a", {}, 1), ("Euler a", {"eta": 0.5}, 1), ("DDIM", {"eta": 1.0}, 1), ("DDPM", {}, 1),
    ("Euler", {"s_churn": 20.0}, 1), ("DPM2 a", {}, 2), ("DPM++ 2S a", {}, 2), ("DPM++ 2S a", {"eta": 0.5}, 2),
    ("Euler a CFG++", {}, 1), ("DDIM CFG++", {"eta": 1.0}, 1),
])
@pytest.mark.parametrize(("space", "ends"), [(SD, (14.0, 0.05)), (FLOW, (0.99, 0.05))], ids=["epsilon", "flow"])
def test_samplers_with_independent_noise_converge_to_mean_and_variance(name, options, order, space, ends):
    errors = []
    for steps in (200, 400, 800):
        mean, variance = relative_moments(name, options, space, even_levels(space, *ends, steps))
        assert mean == pytest.approx(1, abs=1e-9)
        errors.append(variance - 1)
    # Richardson: the error of its order taken off.
    assert errors[2] - (errors[1] - errors[2]) / (2**order - 1) == pytest.approx(0, abs=1e-3)
    for coarse, fine in ((0, 1), (1, 2)):
        assert errors[coarse] / errors[fine] == pytest.approx(2**order, rel=0.05)


def test_a_stochastic_sampler_without_noise_says_so():
    for sample in (euler_ancestral, ddpm, dpm_2_ancestral, dpmpp_2s_ancestral, lcm, tcd):
        with pytest.raises(ValueError, match="source of noise"):
            sample(toy, np.ones(2), (4.0, 2.0, 0.0), space=SD)
