import pytest
import torch

from modules.core.errors import InvalidModel, InvalidRequest
from modules.families import image_condition
from modules.families.base import ImageCondition


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def shrunk(pixels):
    """Stand in for an autoencoder: three channels, one cell for 8 by 8 pixels, no scaling."""
    return torch.nn.functional.avg_pool2d(pixels * 2 - 1, 8)


def half_mask():
    mask = torch.zeros(1, 1, 16, 24)
    mask[..., 8:, :] = 1
    return mask


@pytest.mark.parametrize(("channels", "kind"), [(4, ""), (9, "inpaint"), (8, "edit"), (5, "depth")])
def test_channels_tell_the_kind(channels, kind):
    assert image_condition.takes(channels, 4) == kind
    with pytest.raises(InvalidModel, match="takes 7 channels"):
        image_condition.takes(7, 4)


@pytest.mark.parametrize("strength", [1.0, 0.25, 0.0])
def test_inpaint_is_the_mask_and_the_picture_without_what_it_hides(strength):
    """In -1..1 the picture is interpolated toward picture * (1 - mask), as in A1111's conditional mask weight."""
    pixels, mask = random(2, 3, 16, 24), half_mask()
    found = image_condition.inpaint(ImageCondition(24, 16, pixels, mask, mask_strength=strength), (2, 3), shrunk)
    picture = pixels * 2 - 1
    expected = torch.lerp(picture, picture * (1 - mask), strength)
    assert found.shape == (2, 4, 2, 3)
    torch.testing.assert_close(found[:, :1], torch.tensor([0.0, 1.0]).view(1, 1, 2, 1).expand(2, 1, 2, 3))
    torch.testing.assert_close(found[:, 1:], torch.nn.functional.avg_pool2d(expected, 8))


def test_inpaint_without_a_picture_is_grey_under_a_full_mask():
    found = image_condition.inpaint(ImageCondition(24, 16), (2, 3), shrunk)
    assert torch.equal(found[:, :1], torch.ones(1, 1, 2, 3)) and torch.equal(found[:, 1:], torch.zeros(1, 3, 2, 3))
    whole = image_condition.inpaint(ImageCondition(24, 16, random(1, 3, 16, 24)), (2, 3), shrunk)
    torch.testing.assert_close(whole, found)


def test_edit_is_the_picture_or_nothing():
    pixels = random(1, 3, 16, 24)
    assert torch.equal(image_condition.edit(ImageCondition(24, 16, pixels), (2, 3), 4, shrunk), shrunk(pixels))
    assert torch.equal(image_condition.edit(ImageCondition(24, 16), (2, 3), 4, shrunk), torch.zeros(1, 4, 2, 3))


def test_depth_spans_minus_one_to_one_in_each_picture():
    depth = torch.cat([random(1, 1, 12, 12), 40 * random(1, 1, 12, 12, seed=1)])
    found = image_condition.depth(ImageCondition(24, 16, random(2, 3, 16, 24), depth=depth), (2, 3))
    for index in range(2):
        small = torch.nn.functional.interpolate(depth[index:index + 1], size=(2, 3), mode="bicubic")
        expected = 2 * (small - small.min()) / (small.max() - small.min()) - 1
        torch.testing.assert_close(found[index:index + 1], expected)
    assert found.amin((1, 2, 3)).tolist() == [-1, -1] and found.amax((1, 2, 3)).tolist() == [1, 1]


def test_without_relief_or_picture_all_is_far():
    far = torch.full((1, 1, 2, 3), -1.0)
    assert torch.equal(image_condition.depth(ImageCondition(24, 16), (2, 3)), far)
    assert torch.equal(image_condition.depth(ImageCondition(24, 16, depth=torch.full((1, 1, 8, 8), 3.0)), (2, 3)), far)
    with pytest.raises(InvalidRequest, match="needs the depth"):
        image_condition.depth(ImageCondition(24, 16, random(1, 3, 16, 24)), (2, 3))
