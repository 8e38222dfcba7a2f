import numpy as np
import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.sampling.brownian import BrownianPath

SHAPE = (4, 5)
LOW, HIGH = 0.03, 14.6


def normal(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def path(seed, low=LOW, high=HIGH):
    return BrownianPath(low, high, seed, normal)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), st.floats(LOW, HIGH), st.floats(LOW, HIGH))
def test_paths_are_torchsdes_bit_by_bit(seed, first, second):
    theirs = torchsde.BrownianTree(LOW, torch.zeros(SHAPE), HIGH, entropy=seed)
    low, high = sorted((first, second))
    assert torch.equal(path(seed).increment(low, high), theirs(low, high))
    assert torch.equal(path(seed).increment(LOW, HIGH), theirs(LOW, HIGH))


def test_increments_do_not_depend_on_what_was_asked_before():
    asked, fresh = path(7), path(7)
    for low, high in ((0.5, 3.0), (LOW, 0.7), (2.0, 2.1), (LOW, HIGH)):
        asked.increment(low, high)
    assert torch.equal(asked.increment(1.0, 2.0), fresh.increment(1.0, 2.0))


def test_increments_add_up_and_stay_within_the_interval():
    walk = path(3)
    torch.testing.assert_close(walk.increment(0.5, 2.0) + walk.increment(2.0, 9.0), walk.increment(0.5, 9.0))
    assert torch.equal(walk.increment(-5.0, 99.0), walk.increment(LOW, HIGH))
    assert torch.equal(walk.increment(2.0, 2.0), torch.zeros(SHAPE))


def test_the_variance_of_an_increment_is_its_length():
    def many(seed):
        return np.random.default_rng(seed).normal(size=40_000)

    walk = BrownianPath(LOW, HIGH, 11, many)
    for low, high in ((0.1, 0.35), (1.0, 6.0)):
        assert walk.increment(low, high).var() == pytest.approx(high - low, rel=0.03)
    correlation = np.corrcoef(walk.increment(0.1, 3.0), walk.increment(3.0, 8.0))[0, 1]
    assert abs(correlation) < 0.02
