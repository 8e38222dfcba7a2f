import numpy as np
import pytest
import torch

from modules.sampling.guidance import classifier_free, compose, needs_uncond


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_classifier_free_guidance(make):
    np.testing.assert_allclose(np.asarray(classifier_free(make([2.0, 0.0]), make([1.0, -1.0]), 7.5)), [8.5, 6.5])


def test_scale_one_is_the_condition_alone_and_needs_no_other():
    cond = np.array([0.25, 3.0])
    assert not needs_uncond(1.0)
    np.testing.assert_array_equal(classifier_free(cond, None, 1.0), cond)
    assert needs_uncond(7.0) and needs_uncond(0.0)


def test_scale_zero_is_the_negative_prompt_alone():
    np.testing.assert_array_equal(classifier_free(np.array([5.0]), np.array([2.0]), 0.0), [2.0])


def test_and_adds_weighted_directions():
    conds = [(np.array([3.0]), 1.0), (np.array([0.0]), -0.5)]
    np.testing.assert_allclose(compose(conds, np.array([1.0]), 4.0), [1 + 4 * 2 - 0.5 * 4 * -1])


def test_and_needs_no_negative_prompt_only_where_the_weights_leave_it_none():
    assert not needs_uncond(1.0, (0.25, 0.75)) and not needs_uncond(2.0, (0.5,))
    assert needs_uncond(1.0, (1.0, 1.0))
    conds = [(np.array([4.0]), 0.25), (np.array([8.0]), 0.75)]
    np.testing.assert_allclose(compose(conds, None, 1.0), compose(conds, np.array([123.0]), 1.0))
