import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from modules.sampling.noise import brownian_noise
from modules.sampling.schedules import find_schedule, schedule_sigmas
from modules.sampling.sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde, er_sde, er_sde_noise, sa_solver
from tests.sampling.analytic import (
    DEVIATION,
    FLOW,
    MEAN,
    SD,
    SD_CONFIG,
    Repeated,
    even_levels,
    gaussian,
    relative_moments,
    run_diffusers,
    start,
    toy,
)


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


@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_dpmpp_2m_sde_is_diffusers(solver_type):
    from diffusers import DPMSolverMultistepScheduler

    sigmas = schedule_sigmas(find_schedule("Exponential"), 11, SD)
    theirs = DPMSolverMultistepScheduler(**SD_CONFIG, algorithm_type="sde-dpmsolver++", solver_type=solver_type,
                                         final_sigmas_type="zero", prediction_type="sample")
    x = start()
    expected = run_diffusers(theirs, x, sigmas, noise=Repeated(7))
    ours = dpmpp_2m_sde(toy, x * math.hypot(1, sigmas[0]), sigmas, noise=Repeated(7), space=SD, solver_type=solver_type)
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)


def test_dpmpp_3m_without_noise_is_diffusers():
    from diffusers import DPMSolverMultistepScheduler

    sigmas = schedule_sigmas(find_schedule("Exponential"), 17, SD)
    # The second step, of order 2, is the exact integral, which diffusers calls heun.
    theirs = DPMSolverMultistepScheduler(**SD_CONFIG, solver_order=3, algorithm_type="dpmsolver++", solver_type="heun",
                                         lower_order_final=False, final_sigmas_type="zero", prediction_type="sample")
    x = start()
    ours = dpmpp_3m_sde(toy, x * math.hypot(1, sigmas[0]), sigmas, space=SD, eta=0.0)
    torch.testing.assert_close(ours, run_diffusers(theirs, x, sigmas), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_step_of_dpmpp_3m_sde_by_its_formula(eta):
    """k-diffusion's three steps, written out in its own variables."""
    sigmas, x, drawn = (9.0, 5.0, 2.0, 0.7), np.array([8.0, -4.0]), [np.array([0.3, -0.2])] * 3
    y, d, h = x, [], []
    for sigma, sigma_next in itertools.pairwise(sigmas):
        d.insert(0, toy(y, sigma).x0)
        h.insert(0, math.log(sigma / sigma_next))
        h_eta = h[0] * (eta + 1)
        y = math.exp(-h_eta) * y - math.expm1(-h_eta) * d[0]
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        if len(d) == 2:
            y = y + phi_2 * (d[0] - d[1]) / (h[1] / h[0])
        if len(d) == 3:
            r0, r1 = h[1] / h[0], h[2] / h[0]
            d1_0, d1_1 = (d[0] - d[1]) / r0, (d[1] - d[2]) / r1
            d1, d2 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1), (d1_0 - d1_1) / (r0 + r1)
            y = y + phi_2 * d1 - (phi_2 / h_eta - 0.5) * d2
        y = y + drawn[0] * sigma_next * math.sqrt(-math.expm1(-2 * h[0] * eta)) * 1.02
    ours = dpmpp_3m_sde(toy, x, sigmas, noise=lambda now, then: drawn[0], space=SD, eta=eta, s_noise=1.02)
    np.testing.assert_allclose(ours, y, rtol=1e-12)


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_er_sde_by_its_integrals(space):
    """Cui et al. 2023, equations 22 to 26, with the integrals by an adaptive rule."""
    sigmas, x, fresh = tuple(space.sigma_of(v) for v in (-2.0, -1.0, -0.2, 1.0)), np.array([1.5, -2.5]), np.ones(2) / 3
    y, ratios, x0s, slopes = x, [], [], []
    for sigma, sigma_next in itertools.pairwise(sigmas):
        alpha, alpha_next = space.alpha(sigma), space.alpha(sigma_next)
        now, then = sigma / alpha, sigma_next / alpha_next
        ratios.insert(0, now)
        x0s.insert(0, toy(y, sigma).x0)
        r = er_sde_noise(then) / er_sde_noise(now)
        y = alpha_next / alpha * r * y + alpha_next * (1 - r) * x0s[0]
        if len(x0s) > 1:
            slopes.insert(0, (x0s[0] - x0s[1]) / (ratios[0] - ratios[1]))
            integral = quad(lambda v: 1 / er_sde_noise(v), then, now, epsabs=1e-13)[0]
            y = y + alpha_next * (then - now + er_sde_noise(then) * integral) * slopes[0]
        if len(x0s) > 2:
            curve = 2 * (slopes[0] - slopes[1]) / (ratios[0] - ratios[2])
            integral = quad(lambda v, end=now: (v - end) / er_sde_noise(v), then, now, epsabs=1e-13)[0]
            y = y + alpha_next * ((then - now) ** 2 / 2 + er_sde_noise(then) * integral) * curve
        y = y + alpha_next * math.sqrt(then**2 - (r * now) ** 2) * 1.01 * fresh
    ours = er_sde(toy, x, sigmas, noise=lambda now, then: fresh, space=space, s_noise=1.01)
    np.testing.assert_allclose(ours, y, rtol=1e-9)


def tau_of_one(timestep):
    return 1


def tau_of_none(timestep):
    return 0


@pytest.mark.parametrize(("eta", "tau", "levels"), [(0.0, tau_of_none, (12.0, 0.03)), (1.0, tau_of_one, (6.0, 0.6))])
def test_sa_solver_of_order_one_is_diffusers(eta, tau, levels):
    """Of order 2 diffusers changes the coefficients by hand; those are held to their integrals below."""
    from diffusers import SASolverScheduler

    sigmas = even_levels(SD, *levels, 11)
    theirs = SASolverScheduler(**SD_CONFIG, predictor_order=1, corrector_order=1, prediction_type="sample",
                               tau_func=tau, algorithm_type="data_prediction")
    theirs.set_timesteps(11)
    theirs.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    x = expected = start().float()
    generator = torch.Generator().manual_seed(4)
    for index, timestep in enumerate(theirs.timesteps):
        x0 = toy(expected * math.hypot(1, sigmas[index]), sigmas[index]).x0
        expected = theirs.step(x0, timestep, expected, generator=generator).prev_sample
    ours = sa_solver(toy, x * math.hypot(1, sigmas[0]), sigmas, noise=Repeated(4), space=SD, eta=eta,
                     orders=(1, 1))
    torch.testing.assert_close(ours / math.hypot(1, sigmas[-1]), expected.to(ours), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("space", "tau"), [(SD, 0.0), (SD, 1.0), (SD, 0.7), (FLOW, 1.0)])
def test_sa_solver_integrates_the_polynomials_through_what_it_knows(space, tau):
    """Xue et al. 2023, equations 14 and 17, written out with integrals by an adaptive rule."""
    lambdas = (-1.2, -0.9, -0.5, -0.3, 0.2)
    sigmas, fresh = tuple(space.sigma_of(value) for value in lambdas), np.array([0.2, -0.4])

    def stepped(x, index, used, values):
        """From level ``index`` to the next through the clean latents at the levels ``used``."""
        low, high, power = lambdas[index], lambdas[index + 1], 1 + tau * tau
        total = x * sigmas[index + 1] / sigmas[index] * math.exp(-tau * tau * (high - low))
        for place in used:
            def integrand(v, place=place):
                others = [(v - lambdas[k]) / (lambdas[place] - lambdas[k]) for k in used if k != place]
                return power * math.exp(power * (v - high)) * math.prod(others)
            total = total + space.alpha(sigmas[index + 1]) * quad(integrand, low, high, epsabs=1e-13)[0] * values[place]
        noise = sigmas[index + 1] * math.sqrt(-math.expm1(-2 * tau * tau * (high - low)))
        return total + noise * fresh

    x = predicted = np.array([2.0, -3.0])
    values = {}
    for index in range(4):
        values[index] = toy(predicted, sigmas[index]).x0
        if index:
            x = stepped(x, index - 1, range(max(index - 3, 0), index + 1), values)
        predicted = stepped(x, index, range(max(index - 2, 0), index + 1), values)
    ours = sa_solver(toy, np.array([2.0, -3.0]), sigmas, noise=lambda now, then: fresh, space=space, eta=tau)
    np.testing.assert_allclose(ours, predicted, rtol=1e-10)


def test_sa_solver_is_stochastic_in_the_middle_alone():
    asked = []

    def noise(sigma, sigma_next):
        asked.append(SD.sigma_to_t(sigma_next) / 999)
        return np.zeros(2)

    sa_solver(toy, np.ones(2), schedule_sigmas(find_schedule("Uniform"), 40, SD), noise=noise, space=SD)
    assert len(asked) == 24 and 0.2 <= min(asked) < 0.25 and 0.75 < max(asked) <= 0.8


@pytest.mark.parametrize(("name", "options"), [
    ("DPM++ 2M SDE", {}), ("DPM++ 2M SDE", {"eta": 0.5}), ("DPM++ 2M SDE Heun", {}), ("DPM++ 3M SDE", {}),
    ("DPM++ 3M SDE", {"eta": 0.5}), ("ER SDE", {}), ("SA Solver", {}), ("SA Solver", {"eta": 0.5}),
])
@pytest.mark.parametrize(("space", "ends"), [(SD, (14.0, 0.05)), (FLOW, (0.99, 0.05))], ids=["epsilon", "flow"])
def test_solvers_of_the_sde_converge_to_mean_and_variance(name, options, space, ends):
    """Increments of a Brownian path over steps that do not overlap are independent, one unit each."""
    errors = []
    for steps in (100, 200, 400):
        mean, variance = relative_moments(name, options, space, even_levels(space, *ends, steps))
        assert mean == pytest.approx(1, abs=1e-9)
        errors.append(variance - 1)
    assert abs(errors[2]) < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.3) and errors[1] / errors[2] == pytest.approx(4, abs=0.3)


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


def test_a_stochastic_sampler_without_noise_says_so():
    for sample in (dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, er_sde, sa_solver):
        with pytest.raises(ValueError, match="source of noise"):
            sample(toy, np.ones(2), (4.0, 2.0, 0.0), space=SD)
