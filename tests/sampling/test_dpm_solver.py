import itertools
import math

import numpy as np
import pytest

from modules.core.errors import DarkroomError
from modules.sampling.dpm_solver import MAX_ATTEMPTS, adaptive_calls, dpm_adaptive, dpm_fast, fast_orders
from modules.sampling.samplers import Denoised
from tests.sampling.analytic import (
    DEVIATION,
    FLOW,
    MEAN,
    SD,
    even_levels,
    flowed,
    gaussian,
    measured_order,
    relative_moments,
    toy,
)


def test_the_orders_add_up_to_the_calls():
    assert fast_orders(9) == [3, 3, 2, 1] and fast_orders(10) == [3, 3, 3, 1] and fast_orders(11) == [3, 3, 3, 2]
    assert fast_orders(1) == [1] and fast_orders(2) == [2] and fast_orders(3) == [2, 1] and fast_orders(0) == []
    assert all(sum(fast_orders(calls)) == calls for calls in range(60))


def written_out(x, low, high, order, r):
    """Lu et al. 2022a, algorithms 1 to 3 with alpha = 1, in their lambda and noise."""
    h, (r1, r2) = high - low, r

    def noise(y, place):
        return (y - toy(y, math.exp(-place)).x0) * math.exp(place)

    first = noise(x, low)
    if order == 1:
        return x - math.exp(-high) * math.expm1(h) * first
    s1, s2 = low + r1 * h, low + r2 * h
    change = noise(x - math.exp(-s1) * math.expm1(r1 * h) * first, s1) - first
    if order == 2:
        return x - math.exp(-high) * math.expm1(h) * (first + change / (2 * r1))
    u2 = x - math.exp(-s2) * (math.expm1(r2 * h) * first + r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1) * change)
    change = noise(u2, s2) - first
    return x - math.exp(-high) * (math.expm1(h) * first + (math.expm1(h) / h - 1) / r2 * change)


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 8, 9])
def test_dpm_fast_by_its_algorithm(calls):
    x, sigmas = np.array([9.0, -4.0]), tuple(np.geomspace(10.0, 0.1, calls + 1).tolist())
    orders = fast_orders(calls)
    expected = x
    for order, (low, high) in zip(orders, itertools.pairwise(np.linspace(-math.log(10), -math.log(0.1),
                                                                        len(orders) + 1)), strict=True):
        expected = written_out(expected, low, high, order, (1 / 3, 2 / 3) if order == 3 else (1 / 2, 0))
    np.testing.assert_allclose(dpm_fast(toy, x, sigmas, space=SD, eta=0.0), expected, rtol=1e-10)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_an_ancestral_step_of_dpm_fast_ends_at_the_lowest_level_without_noise(eta):
    """k-diffusion: the step goes to sigma_down, not below the end, and noise fills up the rest."""
    x, first, last, fresh = np.array([9.0, -4.0]), 10.0, 1.0, np.array([0.5, -0.25])
    middle = math.sqrt(first * last)
    down = math.sqrt(middle**2 - min(middle, eta * middle * math.sqrt(1 - (middle / first) ** 2)) ** 2)
    down = max(down, last)
    y = written_out(x, -math.log(first), -math.log(down), 3, (1 / 3, 2 / 3))
    y = y + 1.01 * fresh * math.sqrt(middle**2 - down**2)
    y = written_out(y, -math.log(middle), -math.log(last), 1, (1 / 2, 0))
    ours = dpm_fast(toy, x, (first, 6.0, 4.0, 2.0, last), noise=lambda now, then: fresh, space=SD, eta=eta,
                    s_noise=1.01)
    np.testing.assert_allclose(ours, y, rtol=1e-10)


@pytest.mark.parametrize(("space", "ends"), [(SD, (3.0, 0.5)), (FLOW, (0.95, 0.5))], ids=["epsilon", "flow"])
def test_dpm_fast_is_of_third_order_where_its_last_step_is_of_second(space, ends):
    def errors(calls):
        x = np.array([1.3, -2.0])
        ours = dpm_fast(gaussian(space), x, even_levels(space, *ends, calls), space=space, eta=0.0)
        return np.abs(ours - flowed(space, x, *ends)).max()

    assert math.log2(errors(3 * 63 + 2) / errors(3 * 127 + 2)) == pytest.approx(3, abs=0.1)
    assert measured_order(dpm_fast, space, ends, 192, {"eta": 0.0}) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("space", "ends"), [(SD, (14.0, 0.05)), (FLOW, (0.99, 0.05))], ids=["epsilon", "flow"])
def test_dpm_fast_converges_to_mean_and_variance(space, ends):
    means, variances = zip(*(relative_moments("DPM fast", {}, space, even_levels(space, *ends, steps))
                             for steps in (99, 198, 396)), strict=True)
    assert means == pytest.approx((1, 1, 1))
    errors = [abs(variance - 1) for variance in variances]
    assert errors[2] < 3e-5 and errors[0] > 2 * errors[1] > 4 * errors[2]


class Counted:
    """A denoiser that counts."""

    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x, sigma):
        self.calls += 1
        return self.denoise(x, sigma)


def pictures(space, count=20_000):
    generator = np.random.default_rng(0)
    scale = math.hypot(space.alpha(space.sigma_max) * DEVIATION, space.sigma_max)
    x = generator.normal(size=count) * scale + space.alpha(space.sigma_max) * MEAN
    return x, lambda now, then: generator.normal(size=count)


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_dpm_adaptive_meets_its_tolerance_and_a_finer_one_costs_more(space):
    x, noise = pictures(space)
    ends, calls = (space.sigma_max, space.sigma_min), []
    exact = flowed(space, x, *ends)
    for rtol, atol in ((0.05, 0.0078), (0.005, 0.00078), (0.0005, 0.000078)):
        counted = Counted(gaussian(space))
        ours = dpm_adaptive(counted, x, ends, space=space, eta=0.0, tolerances=(rtol, atol))
        # The tolerance is for each step, relative to a latent that shrinks from step to step.
        assert math.sqrt((((ours - exact) / (atol + rtol * np.abs(exact))) ** 2).mean()) < counted.calls / 3
        calls.append(counted.calls)
    assert 10 < calls[0] < calls[1] < calls[2] < 400


@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
def test_dpm_adaptive_reproduces_mean_and_variance(space):
    x, noise = pictures(space)
    counted = Counted(gaussian(space))
    ends = (space.sigma_max, space.sigma_min)
    x = dpm_adaptive(counted, x, ends, noise=noise, space=space)
    assert x.mean() == pytest.approx(MEAN, abs=0.02) and x.var() == pytest.approx(DEVIATION**2, rel=0.05)
    assert counted.calls % 3 == 0 and counted.calls == pytest.approx(adaptive_calls(ends, space), rel=0.6)


def test_dpm_adaptive_by_its_first_step():
    """k-diffusion: h = 0.05 first, times 1 + atan(error^(-1/3) - 1) where that is 0.81 or more."""
    asked, x = [], np.array([9.0, -4.0])

    def denoise(y, sigma):
        asked.append(sigma)
        return toy(y, sigma)

    dpm_adaptive(denoise, x, (10.0, 5.0), space=SD, eta=0.0)
    low, high = (written_out(x, -math.log(10), 0.05 - math.log(10), order, (1 / 3, 2 / 3)) for order in (2, 3))
    delta = np.maximum(0.0078, 0.05 * np.maximum(np.abs(low), np.abs(x)))
    error = np.linalg.norm((low - high) / delta) / math.sqrt(2)
    factor = 1 + math.atan((error + 1e-8) ** (-1 / 3) - 1)
    steps = [0.0, 0.05 / 3, 0.1 / 3, 0.05, 0.05 + 0.05 * factor / 3]
    np.testing.assert_allclose(np.log(10 / np.array(asked[:5])), steps, atol=1e-9)


def test_a_prediction_that_is_no_number_ends_dpm_adaptive():
    with pytest.raises(DarkroomError, match="not a number"):
        dpm_adaptive(lambda x, sigma: Denoised(x * math.nan), np.ones(2), (10.0, 0.1), space=SD, eta=0.0)


def test_steps_that_are_never_accepted_end_dpm_adaptive():
    generator = np.random.default_rng(0)
    counted = Counted(lambda x, sigma: Denoised(generator.normal(size=2) * 1e9))
    with pytest.raises(DarkroomError, match="did not finish"):
        dpm_adaptive(counted, np.ones(2), (10.0, 0.1), space=SD, eta=0.0)
    assert counted.calls == 3 * MAX_ATTEMPTS


def test_nothing_to_do_asks_nothing():
    counted = Counted(toy)
    assert dpm_adaptive(counted, 3.0, (2.0, 2.0), space=SD) == 3.0 and counted.calls == 0
    assert dpm_fast(counted, 3.0, (2.0,), space=SD) == 3.0 and adaptive_calls((2.0,), SD) == 0
    for last in (2.0, 3.0):
        np.testing.assert_allclose(dpm_fast(toy, np.ones(2), (2.0, last), space=SD), np.ones(2))
