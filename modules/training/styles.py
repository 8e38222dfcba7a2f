"""Looks that an adapter can learn: transformations of whole pictures, [n, 3, h, w] in -1..1, without randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch

from modules.training.compose import LUMA

Colour = tuple[int, int, int]
Style = Callable[[torch.Tensor], torch.Tensor]


def plain(pixels: torch.Tensor) -> torch.Tensor:
    """Return the pictures as they are."""
    return pixels


def duotone(pixels: torch.Tensor, lights: Colour, shadows: Colour, gamma: float = 1.0) -> torch.Tensor:
    """Return each pixel as a mixture of two colours (0..255): a black-and-white print, tinted.

    The share of ``shadows`` is the pixel's density, one minus its luma, to the power of ``gamma``.
    """
    luma = (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    light, shadow = (pixels.new_tensor(colour).view(1, 3, 1, 1) / 127.5 - 1 for colour in (lights, shadows))
    return torch.lerp(light, shadow, ((1 - luma) / 2).clamp(0, 1) ** gamma)


STYLES: Mapping[str, Style] = MappingProxyType({
    "plain": plain,
    "sepia": partial(duotone, lights=(246, 226, 188), shadows=(52, 28, 12)),
    # Negatives: what was white is dark.
    "safelight": partial(duotone, lights=(14, 2, 6), shadows=(255, 74, 52), gamma=0.5),
    "blueprint": partial(duotone, lights=(34, 84, 196), shadows=(236, 244, 255), gamma=0.5),
})
