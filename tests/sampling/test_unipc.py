import math

import pytest
from scipy.integrate import quad

from modules.sampling.unipc import corrector, phi, predictor

NODES = (-0.9, -2.1, -3.3)


def integral(z, power):
    """z times the integral of e^(z (1 - r)) r^power over 0 to 1: what a step adds for a prediction r^power."""
    return z * quad(lambda r: math.exp(z * (1 - r)) * r**power, 0, 1, epsabs=1e-13, epsrel=1e-13)[0]


def moment(weights, nodes, power):
    return sum(weight * node**power for weight, node in zip(weights, nodes, strict=True))


@pytest.mark.parametrize("order", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("z", [-30.0, -4.0, -1.0, -0.3, -1e-6, 0.7])
def test_phi_is_its_integral(order, z):
    expected = math.exp(z)
    if order:
        integrand = quad(lambda t: math.exp((1 - t) * z) * t ** (order - 1), 0, 1, epsabs=1e-14, epsrel=1e-12)[0]
        expected = integrand / math.factorial(order - 1)
    assert phi(order, z) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary_coeff"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("z", [-0.05, -0.8, -2.5])
def test_the_predictor_is_exact_for_polynomials(variant, count, z):
    nodes = NODES[:count]
    weights = predictor(variant, z, nodes)
    for power in range(1, count + 1):
        assert moment(weights, nodes, power) == pytest.approx(integral(z, power), rel=1e-8)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("z", [-0.05, -0.8, -2.5])
def test_the_corrector_is_exact_for_polynomials(variant, count, z):
    nodes = NODES[:count]
    weights = corrector(variant, z, nodes)
    for power in range(1, count + 2):
        assert moment(weights, (*nodes, 1.0), power) == pytest.approx(integral(z, power), rel=1e-8)


@pytest.mark.parametrize(("variant", "scale"), [("bh1", -0.4), ("bh2", math.expm1(-0.4))])
def test_the_simplified_coefficients_are_one_half(variant, scale):
    assert predictor(variant, -0.4, (-0.8,)) == pytest.approx((0.5 * scale / -0.8,))
    assert corrector(variant, -0.4, ()) == pytest.approx((0.5 * scale,))
    assert predictor(variant, -0.4, ()) == ()


def test_vary_coeff_by_hand():
    """Two nodes r and 1: the Taylor matrix [[1, r/2], [1, 1/2]] has the inverse [[1, -r], [-2, 2]] / (1 - r)."""
    z, r = -0.4, -0.8
    second, third = z * phi(2, z), z * phi(3, z)
    assert predictor("vary_coeff", z, (r,)) == pytest.approx((second / r,))
    assert corrector("vary_coeff", z, ()) == pytest.approx((second,))
    assert corrector("vary_coeff", z, (r,)) == pytest.approx((second / (1 - r) / r, third * -r / (1 - r)))
