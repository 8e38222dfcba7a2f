"""Seamless pictures: a network that wraps around does not know where a picture begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from modules.families import autoencoder
from modules.runtime import tiling


def seeded(build: Any) -> Any:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    unet = seeded(lambda: UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=8, attention_head_dim=2,
        norm_num_groups=4))
    vae = seeded(lambda: AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=4))
    return {"unet": unet, "vae": vae}


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(1, 4, 16, 12, generator=torch.Generator().manual_seed(1))


def rolled(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return torch.roll(x, (rows, columns), (2, 3))


def denoised(modules: Any, x: torch.Tensor) -> torch.Tensor:
    context = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(2))
    return modules["unet"](x, 500.0, encoder_hidden_states=context).sample


def test_what_is_moved_over_an_edge_comes_back_at_the_other(modules: Any, latents: torch.Tensor) -> None:
    tiling.apply(modules, True)
    decoded = autoencoder.decode(modules["vae"], latents)
    moved = autoencoder.decode(modules["vae"], rolled(latents, 5, 3))
    assert torch.allclose(moved, rolled(decoded, 40, 24), atol=1e-5)
    assert torch.allclose(denoised(modules, rolled(latents, 6, 4)), rolled(denoised(modules, latents), 6, 4), atol=1e-4)


def test_without_tiling_it_is_as_before_bit_by_bit(modules: Any, latents: torch.Tensor) -> None:
    tiling.apply(modules, False)
    before = denoised(modules, latents), autoencoder.decode(modules["vae"], latents)
    tiling.apply(modules, True)
    assert not torch.allclose(denoised(modules, latents), before[0], atol=1e-4)
    tiling.apply(modules, False)
    assert torch.equal(denoised(modules, latents), before[0])
    assert torch.equal(autoencoder.decode(modules["vae"], latents), before[1])


def seam(pixels: torch.Tensor) -> float:
    """Return the mean change of colour from the last row to the first."""
    return float((pixels[..., 0, :] - pixels[..., -1, :]).abs().mean())


def test_decoding_in_tiles_has_hardly_a_seam_either(modules: Any) -> None:
    """What is the same everywhere is decoded, so that any change of colour comes from the edges."""
    latents = torch.randn(1, 4, 1, 1, generator=torch.Generator().manual_seed(1)).expand(1, 4, 40, 48)
    tiling.apply(modules, False)
    straight = seam(autoencoder.decode(modules["vae"], latents, tiled=True))
    tiling.apply(modules, True)
    tiled = autoencoder.decode(modules["vae"], latents, tiled=True)
    assert tiled.shape == (1, 3, 320, 384) and seam(tiled) < 0.1 * straight
    assert seam(autoencoder.decode(modules["vae"], latents)) < 1e-6
    assert all(layer.padding_mode == "circular" for layer in modules["vae"].modules()
               if isinstance(layer, torch.nn.Conv2d))


def test_encoding_in_tiles_keeps_the_size(modules: Any) -> None:
    tiling.apply(modules, True)
    pixels = torch.rand(1, 3, 320, 384, generator=torch.Generator().manual_seed(3))
    assert autoencoder.encode(modules["vae"], pixels, tiled=True).shape == (1, 4, 40, 48)
