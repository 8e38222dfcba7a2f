"""Between latents and pixels by a KL autoencoder: range, precision, and tiles where memory is short."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel

if TYPE_CHECKING:
    import torch

    from modules.runtime.device import Placement

# Widest moment of a decode: an upsampled tensor of the second level beside its source and a convolution's workspace,
# counted in full-size feature maps of the first level. Encoding takes no more.
DECODE_MAPS = 10


def wide_range(placement: Placement) -> Placement:
    """Return ``placement`` with an autoencoder that has the range of float32; SDXL's overflows in float16."""
    import torch

    if placement.vae != torch.float16:
        return placement
    return dataclasses.replace(placement, vae=placement.wide)


def decode(vae: Any, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
    """Return latents [n, channels, h, w], scaled for the denoiser, as float32 pixels [n, 3, H, W] in 0..1 on the CPU.

    Pictures are decoded one by one. On a CPU, tiles are also taken where the whole would not fit in memory, since
    running out of it there ends the process. An autoencoder that overflows in half precision is kept in float32 from
    then on. Raises ``InvalidModel`` where the result is still not a number.
    """
    import torch

    if not bool(torch.isfinite(latents).all()):
        raise InvalidModel(
            "The model's result is not a number (NaN), so there is no picture.",
            "Start with --no-half (or --upcast-sampling); if it stays, the model or a patch on it is damaged.",
        )
    shift, factor = vae.config.shift_factor or 0.0, _factor(vae)

    def one(latent: torch.Tensor) -> torch.Tensor:
        scaled = latent.to(vae.device, torch.float32) / vae.config.scaling_factor + shift
        tile = _tile(factor * max(latent.shape[-2:])) if tiled or _too_large(vae, latent) else 0
        decoded = _finite(vae, lambda: _in_tiles(
            vae, lambda latent: vae.decode(latent).sample, scaled.to(vae.dtype), tile, factor))
        return (decoded / 2 + 0.5).clamp(0, 1).cpu()
    return torch.cat([one(latent) for latent in latents.split(1)])


def encode(vae: Any, pixels: torch.Tensor, generator: Any = None, tiled: bool = False) -> torch.Tensor:
    """Return pixels [n, 3, H, W] in 0..1 as float32 latents on the CPU, scaled for the denoiser.

    The mean of the posterior without ``generator``, else a sample drawn with it. Otherwise as ``decode``.
    """
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    shift, factor = vae.config.shift_factor or 0.0, _factor(vae)

    def one(picture: torch.Tensor) -> torch.Tensor:
        large = tiled or _too_large(vae, picture[..., ::factor, ::factor])
        tile = _tile(max(picture.shape[-2:])) if large else 0

        def moments() -> torch.Tensor:
            scaled = (picture * 2 - 1).to(vae.device, vae.dtype)
            return _in_tiles(vae, lambda pixels: vae.encode(pixels).latent_dist.parameters, scaled, tile)
        posterior = DiagonalGaussianDistribution(_finite(vae, moments))
        latent = posterior.mean if generator is None else posterior.sample(generator)
        return ((latent - shift) * vae.config.scaling_factor).cpu()
    return torch.cat([one(picture) for picture in pixels.split(1)])


def _finite(vae: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return what ``compute`` gives, in float32; computed again in float32 where half precision overflows."""
    import torch

    with torch.no_grad():
        result = compute().float()
        if not bool(torch.isfinite(result).all()) and vae.dtype != torch.float32:
            vae.float()
            result = compute().float()
    if not bool(torch.isfinite(result).all()):
        raise InvalidModel("The VAE's result is not a number (NaN), so there is no picture.", "Choose another VAE.")
    return result


def _tile(side: int) -> int:
    """Return the side of the tiles for a picture of ``side``, in pixels."""
    return 512 if side > 512 else 256


def _in_tiles(
    vae: Any, run: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor, tile: int, cell: int = 1
) -> torch.Tensor:
    """Run in tiles of ``tile`` pixels, blended over a quarter of their side; at once where it is 0.

    ``cell`` is the side in pixels of one element of ``tensor``.
    """
    from modules.runtime import tiling

    if not tile:
        return run(tensor)
    vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // _factor(vae)
    vae.enable_tiling()
    try:
        return tiling.in_tiles(vae, run, tensor, tile // 4 // cell)
    finally:
        vae.disable_tiling()


def _factor(vae: Any) -> int:
    """Return the pixels per latent cell and side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def decode_bytes(vae: Any, latents: torch.Tensor) -> int:
    """Return about how many bytes decoding ``latents`` at once takes."""
    pixels = latents.shape[0] * latents.shape[-2] * latents.shape[-1] * _factor(vae) ** 2
    return int(pixels * vae.config.block_out_channels[0] * DECODE_MAPS * vae.dtype.itemsize)


def _too_large(vae: Any, latents: torch.Tensor) -> bool:
    from modules.runtime.device import available

    return vae.device.type == "cpu" and decode_bytes(vae, latents) > available(vae.device)
