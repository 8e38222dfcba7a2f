"""Between latents and pixels by a KL autoencoder: range, precision, and tiles where memory is short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel

if TYPE_CHECKING:
    import torch

# Widest moment of a decode: an upsampled tensor of the second level beside its source and a convolution's workspace,
# counted in full-size feature maps of the first level.
DECODE_MAPS = 10


def decode(vae: Any, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
    """Return latents [n, channels, h, w], scaled for the denoiser, as float32 pixels [n, 3, H, W] in 0..1 on the CPU.

    On a CPU, tiles are also taken where the whole would not fit in memory, since running out of it there ends the
    process. An autoencoder that overflows in half precision is kept in float32 from then on. Raises ``InvalidModel``
    where the result is still not a number.
    """
    import torch

    if not bool(torch.isfinite(latents).all()):
        raise InvalidModel(
            "The model's result is not a number (NaN), so there is no picture.",
            "Start with --no-half (or --upcast-sampling); if it stays, the model or a patch on it is damaged.",
        )
    tiled = tiled or _too_large(vae, latents)
    pixels = _decode(vae, latents, tiled)
    if not bool(torch.isfinite(pixels).all()) and vae.dtype != torch.float32:
        vae.float()
        pixels = _decode(vae, latents, tiled)
    if not bool(torch.isfinite(pixels).all()):
        raise InvalidModel("The VAE's result is not a number (NaN), so there is no picture.", "Choose another VAE.")
    return pixels


def _decode(vae: Any, latents: torch.Tensor, tiled: bool) -> torch.Tensor:
    import torch

    scaled = latents.to(vae.device, torch.float32) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    with torch.no_grad():
        decoded = _tiled(vae, scaled.to(vae.dtype)) if tiled else vae.decode(scaled.to(vae.dtype)).sample
        pixels: torch.Tensor = (decoded.float() / 2 + 0.5).clamp(0, 1).cpu()
    return pixels


def _tiled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode in tiles of 512 pixels, or 256 for pictures that are no larger, blended over a quarter of their side."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = 512 if max(latents.shape[-2:]) * factor > 512 else 256
    vae.tile_sample_min_size, vae.tile_latent_min_size = side, side // factor
    vae.enable_tiling()
    try:
        decoded: torch.Tensor = vae.decode(latents).sample
    finally:
        vae.disable_tiling()
    return decoded


def decode_bytes(vae: Any, latents: torch.Tensor) -> int:
    """Return about how many bytes decoding ``latents`` at once takes."""
    widths = vae.config.block_out_channels
    pixels = latents.shape[0] * latents.shape[-2] * latents.shape[-1] * 4 ** (len(widths) - 1)
    return int(pixels * widths[0] * DECODE_MAPS * vae.dtype.itemsize)


def _too_large(vae: Any, latents: torch.Tensor) -> bool:
    from modules.runtime.device import available

    return vae.device.type == "cpu" and decode_bytes(vae, latents) > available(vae.device)


def encode(vae: Any, pixels: torch.Tensor, generator: Any = None) -> torch.Tensor:
    """Return pixels [n, 3, H, W] in 0..1 as float32 latents on the CPU, scaled for the denoiser.

    The mean of the posterior without ``generator``, else a sample drawn with it.
    """
    import torch

    with torch.no_grad():
        posterior = vae.encode((pixels * 2 - 1).to(vae.device, vae.dtype)).latent_dist
        latents = posterior.mean if generator is None else posterior.sample(generator)
        scaled: torch.Tensor = (latents.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return scaled.cpu()
