"""Pictures as channels beside the noisy latent, for denoisers that were widened to take them.

The number of channels that a denoiser takes tells what they are: a mask and the picture without what it hides
(inpainting), a picture to edit (InstructPix2Pix), or a depth map. An upscaler takes a small picture's colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from modules.core.errors import InvalidModel, InvalidRequest
from modules.families.base import ImageCondition

if TYPE_CHECKING:
    import torch

Encode = Callable[["torch.Tensor"], "torch.Tensor"]
"""Maps pixels [n, 3, H, W] in 0..1 to latents [n, channels, h, w], scaled for the denoiser."""

GREY = 0.5
FAR = -1.0
COLOURS = 3
USE_AS_UPSCALER = "Choose it as an upscaler: in the Extras tab, for hires fix, or for img2img under Settings."


def takes(channels: int, latent_channels: int) -> str:
    """Return what a denoiser of ``channels`` takes beside a latent: ``inpaint``, ``edit``, ``depth`` or nothing.

    Raises ``InvalidModel`` for a number of channels that no published kind of model has.
    """
    kinds = {latent_channels: "", 2 * latent_channels + 1: "inpaint", 2 * latent_channels: "edit",
             latent_channels + 1: "depth"}
    if channels not in kinds:
        raise InvalidModel(f"The denoiser takes {channels} channels, and latents have {latent_channels}: this is an "
                           "unknown kind of model.", "Choose a checkpoint made for text to image, or for inpainting.")
    return kinds[channels]


def inpaint(condition: ImageCondition, cells: tuple[int, int], encode: Encode) -> torch.Tensor:
    """Return the mask and the latent of the picture with grey under the mask: [n, 1 + channels, *cells].

    Text to image is a grey picture under a full mask. The mask is shrunk to ``cells`` (height, width) by nearest
    neighbours, as AUTOMATIC1111's web UI and latent-diffusion do.
    """
    import torch

    pixels, mask = condition.pixels, condition.mask
    if pixels is None:
        pixels, mask = torch.full((1, 3, condition.height, condition.width), GREY), None
    if mask is None:
        mask = torch.ones(len(pixels), 1, *pixels.shape[-2:])
    latents = encode(GREY + (pixels - GREY) * (1.0 - mask * condition.mask_strength))
    small = torch.nn.functional.interpolate(mask.float(), size=cells)
    return torch.cat([small.expand(len(latents), -1, -1, -1).to(latents), latents], dim=1)


def edit(condition: ImageCondition, cells: tuple[int, int], channels: int, unscaled: Encode) -> torch.Tensor:
    """Return the latent of the picture as the autoencoder gives it, [n, channels, *cells]; zeros without a picture.

    Brooks et al. 2023 (InstructPix2Pix) left out the scaling that noisy latents have.
    """
    import torch

    if condition.pixels is None:
        return torch.zeros(1, channels, *cells)
    return unscaled(condition.pixels)


def depth(condition: ImageCondition, cells: tuple[int, int]) -> torch.Tensor:
    """Return the depth map at the size of the latent, [n, 1, *cells], each picture's in -1 (far) to 1 (near).

    Text to image sees a plane that is as far as can be. Raises ``InvalidRequest`` for a picture without its depth.
    """
    import torch

    if condition.depth is None:
        if condition.pixels is not None:
            raise InvalidRequest("This model needs the depth of the picture.",
                                 "Give it a depth map, or an extension that makes one, or choose another checkpoint.")
        return torch.full((1, 1, *cells), FAR)
    given = condition.depth.float()
    small = torch.nn.functional.interpolate(given, size=cells, mode="bicubic")
    low, high = small.amin((1, 2, 3), keepdim=True), small.amax((1, 2, 3), keepdim=True)
    # Without any relief all is far; the quotient would be rounding errors, or not a number.
    flat = (given == given[:, :1, :1, :1]).flatten(1).all(1)[:, None, None, None] | (high == low)
    return torch.where(flat, FAR, 2 * (small - low) / (high - low) + FAR)


def low_resolution(condition: ImageCondition, share: float) -> torch.Tensor:
    """Return the small picture in -1..1 with noise on it, [n, 3, h, w]; ``share`` of its variance is the picture's.

    Ho et al. 2020 (DDPM), equation 4. Raises ``InvalidRequest`` without a picture and its noise.
    """
    if condition.pixels is None or condition.noise is None:
        raise InvalidRequest("An upscaler makes a picture larger, and there is none.", USE_AS_UPSCALER)
    signal: torch.Tensor = (condition.pixels * 2 - 1) * math.sqrt(share)
    return signal + condition.noise * math.sqrt(1 - share)
