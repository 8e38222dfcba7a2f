import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc, betaincinv

from modules.sampling.beta import beta_quantile, beta_share

PARAMETER = st.floats(0.01, 5.0)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1, allow_subnormal=False), PARAMETER, PARAMETER)
def test_the_share_is_scipys(value, alpha, beta):
    assert beta_share(value, alpha, beta) == pytest.approx(betainc(alpha, beta, value), rel=1e-10, abs=1e-13)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1), PARAMETER, PARAMETER)
def test_the_quantile_is_scipys(share, alpha, beta):
    """Where the distribution has all but no density, the quantile is what rounding makes of it: so is its share."""
    ours, theirs = beta_quantile(share, alpha, beta), float(betaincinv(alpha, beta, share))
    assert 0 <= ours <= 1
    assert ours == pytest.approx(theirs, abs=1e-9) or betainc(alpha, beta, ours) == pytest.approx(share, abs=1e-10)


def test_a_quantile_below_the_smallest_normal_number_is_found():
    assert beta_quantile(0.0006, 0.01, 1.0) == pytest.approx(float(betaincinv(0.01, 1.0, 0.0006)), abs=1e-300)
    assert beta_quantile(0.9994, 1.0, 0.01) == 1.0


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (0.5, 0.7), (1.0, 1.0), (2.0, 0.01), (0.01, 2.0)])
def test_usual_schedules_to_the_last_digits(alpha, beta):
    for steps in (1, 7, 20, 150):
        for index in range(steps + 1):
            share = 1 - index / steps
            assert beta_quantile(share, alpha, beta) == pytest.approx(betaincinv(alpha, beta, share), abs=1e-13)
