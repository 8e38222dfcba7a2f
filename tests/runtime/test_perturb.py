"""Disturbed rows agree with diffusers' own hooks on the same network; the others are left alone."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.hooks.layer_skip import LayerSkipConfig, _apply_layer_skip_hook
from diffusers.hooks.smoothed_energy_guidance_utils import _gaussian_blur_2d
from scipy import ndimage

from modules.core.errors import InvalidRequest
from modules.core.guidance import Guidance, Perturbation
from modules.families.base import ModelInput
from modules.runtime.attention import AttentionCall, install
from modules.runtime.perturb import blurred, disturbances, grid, prefix
from modules.runtime.perturb import install as open_blocks

ROLES = ("cond", "cond", "uncond", "perturbed", "smoothed", "skipped")
SKIPPED = {"skip_attention": True, "skip_attention_scores": False, "skip_ff": True}
IDENTITY = {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False}


def network():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16, layers_per_block=1,
    ).eval()


def inputs(roles, height=8, width=8):
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(1, 4, height, width, generator=generator), torch.randn(1, 5, 16, generator=generator)
    rows = len(roles)
    return ModelInput(x.expand(rows, -1, -1, -1), 1.0, 10.0, 0, context.expand(rows, -1, -1), roles, (0,) * rows)


def run(unet, told, hooks=()):
    by_kind = {}
    for hook in hooks:
        by_kind.setdefault(hook.kind, []).append(hook)
    with torch.no_grad():
        return unet(told.x, told.timestep, told.context,
                    cross_attention_kwargs={"attention": AttentionCall(told, by_kind)} if hooks else None).sample


def disturbed(guidance, roles, height=8, width=8):
    unet = network()
    install(unet)
    open_blocks(unet)
    return run(unet, inputs(roles, height, width), disturbances(guidance))


def theirs(block, **what):
    unet = network()
    _apply_layer_skip_hook(unet, LayerSkipConfig([0], fqn=f"{block}.transformer_blocks", **what), name="test")
    return run(unet, inputs(("cond",)))


PLACES = [("mid", "mid_block.attentions.0"), ("up.1.1", "up_blocks.1.attentions.1"), ("down.0",
          "down_blocks.0.attentions.0")]


@pytest.mark.parametrize(("layer", "block"), PLACES)
@pytest.mark.parametrize(("field", "role", "what"), [("perturbed", "perturbed", IDENTITY),
                                                     ("skipped", "skipped", SKIPPED)])
def test_perturbed_and_skipped_rows_are_diffusers(layer, block, field, role, what):
    ours = disturbed(Guidance(**{field: Perturbation(3.0, (layer,))}), ("cond", role, "uncond"))
    plain = run(network(), inputs(("cond",)))
    torch.testing.assert_close(ours[0::2], plain.expand(2, -1, -1, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1:2], theirs(block, **what), rtol=1e-4, atol=1e-5)
    assert (ours[1] - ours[0]).abs().max() > 1e-3


def test_each_role_is_disturbed_alone_though_all_share_a_call():
    everything = Guidance(perturbed=Perturbation(1.0), smoothed=Perturbation(1.0), skipped=Perturbation(1.0))
    together = disturbed(everything, ROLES)
    for index, role in enumerate(ROLES):
        alone = disturbed(everything, (role,))
        torch.testing.assert_close(together[index:index + 1], alone, rtol=1e-4, atol=1e-5)
    assert len({round(float(row.double().sum()), 4) for row in together}) == 4


def test_several_layers_are_disturbed_together_and_remembered():
    hooks = disturbances(Guidance(perturbed=Perturbation(1.0, ("mid", "up.1", "down.7"))))
    unet = network()
    install(unet)
    run(unet, inputs(("cond", "perturbed")), hooks)
    assert hooks[0].missing() == ("down.7",)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0, 40.0])
def test_the_blur_is_the_papers(sigma):
    query = torch.randn(2, 3, 64, 5, generator=torch.Generator().manual_seed(2))
    kernel = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    # Diffusers' comparison with the threshold of infinity is the wrong way round, so it is given one that is passed.
    flat = query.transpose(1, 2).flatten(2).clone()
    expected = _gaussian_blur_2d(flat, kernel, sigma, -1.0).unflatten(2, (3, 5)).transpose(1, 2)
    torch.testing.assert_close(blurred(query, (8, 8), sigma), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 10), (1, 7), (2, 3)])
def test_the_blur_of_an_oblong_picture_by_its_formula(size):
    query = torch.randn(1, 1, size[0] * size[1], 2, generator=torch.Generator().manual_seed(3))
    expected = query[0, 0].double().numpy().reshape(*size, 2)
    for axis, side in enumerate(size):
        reach = min(3, side // 2 if side > 1 else 0)
        weights = np.exp(-0.5 * np.arange(-reach, reach + 1) ** 2.0)
        expected = ndimage.correlate1d(expected, weights / weights.sum(), axis, mode="mirror")
    np.testing.assert_allclose(blurred(query, size, 1.0)[0, 0].numpy(), expected.reshape(-1, 2), atol=1e-5)


def test_an_infinite_blur_is_the_mean_of_the_queries():
    query = torch.randn(2, 3, 12, 5, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(blurred(query, (3, 4), math.inf), query.mean(2, keepdim=True).expand_as(query))
    wide = blurred(query, (3, 4), 1e4)
    assert wide.std(dim=2).mean() < query.std(dim=2).mean()


@pytest.mark.parametrize(("tokens", "expected"), [(96 * 64, (96, 64)), (48 * 32, (48, 32)), (24 * 16, (24, 16))])
def test_a_layers_grid_is_the_latents_halved(tokens, expected):
    assert grid(tokens, 96, 64) == expected


def test_odd_sides_are_rounded_up_as_the_network_does():
    assert grid(5 * 7, 9, 13) == (5, 7) and grid(3 * 4, 9, 13) == (3, 4) and grid(1, 1, 1) == (1, 1)
    ours = disturbed(Guidance(smoothed=Perturbation(1.0), blur=1.0), ("cond", "smoothed"), 9, 13)
    assert ours.shape == (2, 4, 9, 13) and (ours[0] - ours[1]).abs().max() > 1e-5


def test_merged_tokens_cannot_be_blurred_and_the_message_says_so():
    with pytest.raises(InvalidRequest, match="grid"):
        grid(40, 8, 8)


def test_layers_are_named_from_the_outside_in():
    assert prefix("mid") == "mid_block." and prefix("mid.0") == "mid_block.attentions.0."
    assert prefix("up.1") == "up_blocks.1."
    assert prefix("down.2.1.9") == "down_blocks.2.attentions.1.transformer_blocks.9."


def test_nothing_is_hooked_where_no_scale_is_set():
    assert disturbances(Guidance()) == ()
