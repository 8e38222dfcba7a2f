import math

import numpy as np
import pytest
import torch

from modules.sampling.multistep import (
    deis,
    dpmpp_2m,
    gradient_estimation,
    ipndm,
    ipndm_v,
    lms,
    plms,
    plms_calls,
    res_multistep,
    unipc,
)
from modules.sampling.schedules import find_schedule, schedule_sigmas
from tests.sampling.analytic import (
    FLOW,
    SD,
    SD_CONFIG,
    even_levels,
    flowed,
    gaussian,
    measured_order,
    run_diffusers,
    run_exploding,
    start,
    toy,
)


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


def test_lms_is_diffusers():
    from diffusers import LMSDiscreteScheduler

    theirs = LMSDiscreteScheduler(**SD_CONFIG, use_karras_sigmas=True)
    theirs.set_timesteps(12)
    sigmas = tuple(theirs.sigmas.tolist())
    x = start() * sigmas[0]
    expected = run_exploding(theirs, x, lambda scheduler: scheduler.sigmas[scheduler.step_index])
    torch.testing.assert_close(lms(toy, x, sigmas, space=SD), expected, rtol=1e-4, atol=1e-4)


def test_plms_is_diffusers():
    """Diffusers' first step is done twice, the second time with the mean of both slopes."""
    from diffusers import PNDMScheduler

    theirs = PNDMScheduler(**SD_CONFIG, skip_prk_steps=True, timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(20)
    sigmas = tuple(SD.sigmas[timestep] for timestep in range(951, 0, -50))
    x = expected = start()
    for timestep in theirs.timesteps[:-1]:
        sigma = SD.sigmas[timestep]
        latent = expected * math.hypot(1, sigma)
        expected = theirs.step((latent - toy(latent, sigma).x0) / sigma, timestep, expected).prev_sample
    ours = plms(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD)
    torch.testing.assert_close(ours / math.hypot(1, sigmas[-1]), expected, rtol=1e-5, atol=1e-5)
    assert len(theirs.timesteps[:-1]) == plms_calls(sigmas, SD)


def test_ipndm_is_diffusers():
    """Their latents are on a circle of their own, into which our levels are put; to 0 ours makes a plain step."""
    from diffusers import IPNDMScheduler

    theirs, sigmas = IPNDMScheduler(), schedule_sigmas(find_schedule("Karras"), 11, SD)
    theirs.set_timesteps(11)
    levels = torch.tensor(sigmas, dtype=torch.float64)
    theirs.alphas = 1 / (1 + levels**2) ** 0.5
    theirs.betas = levels * theirs.alphas
    x = expected = start()
    for timestep, sigma, alpha in zip(theirs.timesteps[:-1], sigmas, theirs.alphas.tolist(), strict=False):
        x0 = toy(expected / alpha, sigma).x0
        epsilon = (expected / alpha - x0) / sigma
        expected = theirs.step(alpha * epsilon - sigma * alpha * x0, timestep, expected).prev_sample
    ours = ipndm(toy, x * math.hypot(1, sigmas[0]), sigmas[:-1], space=SD)
    torch.testing.assert_close(ours / math.hypot(1, sigmas[-2]), expected, rtol=1e-5, atol=1e-5)
    whole = ipndm(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD)
    torch.testing.assert_close(whole, toy(ours, sigmas[-2]).x0)


def test_ipndm_for_uneven_steps_is_adams_bashforth():
    """It is LMS but for the step to 0, and IPNDM where steps are even."""
    sigmas = schedule_sigmas(find_schedule("Karras"), 11, SD)
    x = start() * sigmas[0]
    before = lms(toy, x, sigmas[:-1], space=SD)
    torch.testing.assert_close(ipndm_v(toy, x, sigmas[:-1], space=SD), before)
    torch.testing.assert_close(ipndm_v(toy, x, sigmas, space=SD), toy(before, sigmas[-2]).x0)
    even = tuple(np.linspace(10, 0.5, 12).tolist())
    torch.testing.assert_close(ipndm_v(toy, x, even, space=SD), ipndm(toy, x, even, space=SD))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_diffusers(order):
    """Diffusers' polynomials are in log sigma."""
    from diffusers import DEISMultistepScheduler

    sigmas = even_levels(SD, 12.0, 0.03, 17)
    theirs = DEISMultistepScheduler(**SD_CONFIG, solver_order=order, prediction_type="sample", lower_order_final=False)
    x = start()
    expected = run_diffusers(theirs, x, sigmas) * math.hypot(1, sigmas[-1])
    ours = deis(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD, order=order, time=math.log)
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)


def test_res_multistep_is_the_exact_integral_of_a_straight_line():
    """k-diffusion's 2M SDE with eta 0 and its ``heun`` rule integrates the same line; diffusers has it too."""
    from diffusers import DPMSolverMultistepScheduler

    sigmas = schedule_sigmas(find_schedule("Karras"), 11, SD)
    theirs = DPMSolverMultistepScheduler(**SD_CONFIG, solver_order=2, algorithm_type="dpmsolver++", solver_type="heun",
                                         final_sigmas_type="zero", prediction_type="sample")
    x = start()
    ours = res_multistep(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD)
    torch.testing.assert_close(ours, run_diffusers(theirs, x, sigmas), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 1.5])
def test_gradient_estimation_by_its_formula(gamma):
    sigmas = (6.0, 3.0, 1.0, 0.0)
    x = np.array([4.0, -7.0])

    def d(x, sigma):
        return (x - toy(x, sigma).x0) / sigma

    d1 = d(x, 6.0)
    y = x - 3.0 * d1
    d2 = d(y, 3.0)
    y = y - 2.0 * (gamma * d2 + (1 - gamma) * d1)
    expected = toy(y, 1.0).x0
    np.testing.assert_allclose(gradient_estimation(toy, x, sigmas, space=SD, gamma=gamma), expected, rtol=1e-12)


def test_the_first_slopes_of_plms_are_exact_to_second_order():
    """Its start is by the mean of two slopes: one step alone has a local error of third order."""
    errors = []
    for step in (0.1, 0.05):
        sigmas = (2.0, 2.0 - step)
        ours = plms(gaussian(SD), np.array([3.0]), sigmas, space=SD)
        errors.append(abs(ours - flowed(SD, np.array([3.0]), *sigmas))[0])
    assert math.log2(errors[0] / errors[1]) == pytest.approx(3, abs=0.1)
