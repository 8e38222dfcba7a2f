import numpy as np
import pytest
import torch

from modules.core.guidance import Projection
from modules.sampling.guidance import (
    along,
    classifier_free,
    compose,
    dynamically_thresholded,
    mimicked,
    nearest,
    needs_uncond,
    projected,
    rescaled,
)


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


def pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 3, 4, 5, generator=generator) * 0.7 + 0.2


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescale_is_diffusers(share):
    from diffusers.guiders.guider_utils import rescale_noise_cfg

    cond, uncond = pair()
    guided = classifier_free(cond, uncond, 7.5)
    torch.testing.assert_close(rescaled(guided, cond, share), rescale_noise_cfg(guided, cond, share))


def test_a_whole_rescale_has_the_deviation_of_the_condition():
    cond, uncond = pair()
    ours = rescaled(classifier_free(cond, uncond, 9.0), cond, 1.0)
    torch.testing.assert_close(ours.std(dim=(1, 2, 3)), cond.std(dim=(1, 2, 3)))


def test_dynamic_thresholding_is_diffusers():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=100.0)
    x0 = pair()[0] * torch.tensor([3.0, 0.1]).reshape(2, 1, 1, 1)
    ours = dynamically_thresholded(x0, 0.9)
    torch.testing.assert_close(ours, scheduler._threshold_sample(x0))
    torch.testing.assert_close(ours[1], x0[1])
    assert ours[0].abs().max() == 1


def test_a_wider_limit_is_thresholding_in_units_of_it():
    x0 = pair()[0] * torch.tensor([6.0, 0.1]).reshape(2, 1, 1, 1)
    ours = dynamically_thresholded(x0, 0.9, 3.0)
    torch.testing.assert_close(ours, 3 * dynamically_thresholded(x0 / 3, 0.9))
    torch.testing.assert_close(ours[1], x0[1])


def scaled(cond, uncond, percentile, scale=20.0, mimic=7.0):
    return mimicked(classifier_free(cond, uncond, scale), classifier_free(cond, uncond, mimic), percentile)


@pytest.mark.parametrize("percentile", [1.0, 0.95])
def test_mimicked_guidance_by_its_formula(percentile):
    cond, uncond = pair()
    ours = scaled(cond, uncond, percentile)
    for picture in range(2):
        for channel in range(3):
            full, mimic = ((uncond + scale * (cond - uncond))[picture, channel].double().numpy() for scale in (20, 7))
            limit = np.abs(mimic - mimic.mean()).max()
            largest = max(np.quantile(np.abs(full - full.mean()), percentile), limit)
            expected = np.clip(full - full.mean(), -largest, largest) / largest * limit + full.mean()
            np.testing.assert_allclose(ours[picture, channel].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_mimicking_the_scale_itself_changes_nothing():
    cond, uncond = pair()
    torch.testing.assert_close(scaled(cond, uncond, 1.0, 7.0, 7.0), classifier_free(cond, uncond, 7.0))


@pytest.mark.parametrize("projection", [Projection(), Projection(0.3, 2.5, 0.0), Projection(0.0, 15.0, -0.5)])
def test_adaptive_projected_guidance_is_diffusers(projection):
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    buffer, average = MomentumBuffer(projection.momentum), None
    for call in range(3):
        cond, uncond = pair(call)
        # Diffusers' original formulation: cond + (scale - 1) * direction.
        theirs = normalized_guidance(cond, uncond, 8.0 - 1, buffer if projection.momentum else None, projection.eta,
                                     projection.threshold, use_original_formulation=True)
        direction, average = projected(cond, uncond, projection, average if projection.momentum else None)
        torch.testing.assert_close(along(cond, direction, 8.0), theirs, rtol=1e-4, atol=1e-4)


def test_projected_guidance_that_keeps_everything_is_classifier_free():
    cond, uncond = pair()
    direction, _ = projected(cond, uncond, Projection(eta=1.0))
    torch.testing.assert_close(along(cond, direction, 6.0), classifier_free(cond, uncond, 6.0))


def test_projected_guidance_of_eta_0_moves_across_the_condition():
    cond, uncond = pair()
    moved, _ = projected(cond, uncond, Projection())
    torch.testing.assert_close((moved * cond).sum(dim=(1, 2, 3)), torch.zeros(2), atol=1e-3, rtol=0)


def test_cfg_zero_star_is_diffusers():
    from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale

    cond, uncond = pair()
    scale = cfg_zero_star_scale(cond.flatten(1), uncond.flatten(1)).reshape(2, 1, 1, 1)
    torch.testing.assert_close(nearest(cond, uncond), uncond * scale)


@pytest.mark.parametrize("method", [
    lambda c, u: rescaled(classifier_free(c, u, 7.0), c, 0.7), lambda c, u: dynamically_thresholded(c, 0.8),
    lambda c, u: scaled(c, u, 0.9), lambda c, u: projected(c, u, Projection(0.2, 3.0))[0], nearest,
])
def test_a_picture_is_guided_alone_as_in_a_batch(method):
    cond, uncond = pair()
    torch.testing.assert_close(method(cond, uncond)[1:], method(cond[1:], uncond[1:]))
