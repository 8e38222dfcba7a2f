"""Quick pictures of a latent: a linear map of its channels, or the small decoder TAESD."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from modules.core.errors import InvalidModel
from modules.families.base import LatentFormat
from modules.families.components import open_tensors

if TYPE_CHECKING:
    import torch

Decoder = Callable[["torch.Tensor"], "torch.Tensor"]
"""Maps latents [n, channels, h, w], scaled for the denoiser, to pixels [n, 3, H, W] in 0..1."""


def linear(latents: torch.Tensor, latent: LatentFormat) -> torch.Tensor:
    """Return latents [n, channels, h, w] as pixels [n, 3, h, w] in 0..1, one per latent cell; float32 on the CPU."""
    import torch

    mixed = torch.einsum("nchw,cr->nrhw", latents.detach().float().cpu(), torch.tensor(latent.rgb))
    return ((mixed + torch.tensor(latent.rgb_bias)[:, None, None]) / 2 + 0.5).clamp(0, 1)


def fit_linear(decode: Decoder, latent: LatentFormat, seed: int = 0) -> LatentFormat:
    """Return ``latent`` with the linear map that imitates ``decode`` best, by least squares.

    The samples are smooth random latents: noise of unit variance at several scales, and of as many levels, so that
    flat areas, where colour is seen, count for most.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    samples = torch.cat([_smooth(latent.channels, cells, generator) for cells in (1, 2, 4, 4, 8, 8)])
    pixels = decode(samples).float().cpu() * 2 - 1
    colours = torch.nn.functional.interpolate(pixels, size=samples.shape[-2:], mode="area")
    inputs = samples.permute(0, 2, 3, 1).reshape(-1, latent.channels)
    inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, colours.permute(0, 2, 3, 1).reshape(-1, 3)).solution
    rows = [cast(tuple[float, float, float], tuple(row)) for row in solution.tolist()]
    return dataclasses.replace(latent, rgb=tuple(rows[:-1]), rgb_bias=rows[-1])


def _smooth(channels: int, cells: int, generator: torch.Generator, side: int = 16) -> torch.Tensor:
    """Return 4 latents of unit variance whose values vary over ``side`` / ``cells`` latent cells."""
    import torch

    coarse = torch.randn(4, channels, cells, cells, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="nearest" if cells == 1 else "bilinear")


def taesd(path: str) -> Decoder:
    """Return the decoder in a TAESD file, in its own layout (``1.weight``) or diffusers' (``decoder.layers.0.weight``).

    Computes in float32 on the device that the latents are on. Raises ``InvalidModel`` where the file is something else.
    """
    import torch

    from modules.runtime.weights import Target, assign

    weights = open_tensors(path)
    first = _first_layer(weights)
    channels = weights[first].shape[1]
    model = _build(channels)
    prefix = first.removesuffix("0.weight") if "layers" in first else ""

    def source(name: str) -> str:
        index, _, rest = name.removeprefix("layers.").partition(".")
        # The original's first layer, which limits the latent's range, has no weights and no place in diffusers'.
        return f"{prefix}{index}.{rest}" if prefix else f"{int(index) + 1}.{rest}"

    assign(model, weights, source, Target(torch.device("cpu"), torch.float32), "The preview decoder")

    def decode(latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            decoded = model.to(latents.device)(latents.detach().float())
        return cast("torch.Tensor", (decoded / 2 + 0.5).clamp(0, 1))
    return decode


def _first_layer(weights: Any) -> str:
    for name in ("1.weight", "decoder.layers.0.weight", "layers.0.weight"):
        if name in weights:
            return name
    raise InvalidModel("The preview decoder's file holds no TAESD decoder.", "Download it again.")


def _build(channels: int) -> Any:
    import torch
    from diffusers.models.autoencoders.vae import DecoderTiny

    with torch.device("meta"):
        return DecoderTiny(
            in_channels=channels, out_channels=3, num_blocks=(3, 3, 3, 1), block_out_channels=(64, 64, 64, 64),
            upsampling_scaling_factor=2, act_fn="relu", upsample_fn="nearest",
        )
