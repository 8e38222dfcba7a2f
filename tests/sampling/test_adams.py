import math

import numpy as np
import pytest
from scipy.integrate import quad

from modules.sampling.adams import deis_time, quadrature, transformed_weights, weights


def lagrange(nodes, index, value):
    return math.prod((value - node) / (nodes[index] - node) for place, node in enumerate(nodes) if place != index)


@pytest.mark.parametrize("nodes", [(5.0,), (5.0, 6.0), (5.0, 7.5, 9.0), (5.0, 5.2, 8.0, 14.6)])
def test_the_weights_are_integrals(nodes):
    expected = [quad(lambda v, i=index: lagrange(nodes, i, v), 5.0, 3.5, epsabs=1e-13)[0]
                for index in range(len(nodes))]
    np.testing.assert_allclose(weights(nodes, 5.0, 3.5), expected, rtol=1e-12)


@pytest.mark.parametrize(("count", "expected"), [
    (2, (3 / 2, -1 / 2)), (3, (23 / 12, -16 / 12, 5 / 12)), (4, (55 / 24, -59 / 24, 37 / 24, -9 / 24)),
])
def test_even_steps_are_adams_and_bashforths(count, expected):
    nodes = tuple(4.0 + 0.5 * index for index in range(count))
    np.testing.assert_allclose(weights(nodes, 4.0, 3.5), np.array(expected) * -0.5, rtol=1e-12)


@pytest.mark.parametrize("time", [math.log, deis_time])
@pytest.mark.parametrize("ends", [(14.6, 9.0), (0.8, 0.03), (0.05, 0.03)])
def test_polynomials_in_another_time_are_integrated_over_sigma(time, ends):
    nodes = (ends[0], ends[0] * 1.4, ends[0] * 2.2)
    times = [time(node) for node in nodes]
    expected = [quad(lambda v, i=index: lagrange(times, i, time(v)), *ends, epsabs=1e-13)[0] for index in range(3)]
    np.testing.assert_allclose(transformed_weights(nodes, *ends, time), expected, rtol=1e-7)


def test_the_time_of_deis_is_that_of_the_vp_diffusion():
    """sigma^2 + 1 = e^(beta_d t^2 / 2 + beta_min t), with 0.002 at 0.001 and 80 at 1."""
    assert deis_time(0.002) == pytest.approx(1e-3) and deis_time(80.0) == pytest.approx(1.0)
    t = np.array([deis_time(sigma) for sigma in (0.03, 0.4, 2.0, 14.6)])
    logs = np.log1p(np.array([0.03, 0.4, 2.0, 14.6]) ** 2)
    matrix = np.stack([t**2 / 2, t], axis=1)
    solution, residual, *_ = np.linalg.lstsq(matrix, logs, rcond=None)
    np.testing.assert_allclose(matrix @ solution, logs, rtol=1e-9)


def test_the_rule_is_exact_for_polynomials():
    roots, masses = quadrature(5)
    assert float(masses @ roots**8) == pytest.approx(2 / 9)
