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


def duotone(pixels: torch.Tensor, shadows: Colour, lights: Colour) -> torch.Tensor:
    """Return each pixel as a mixture of two colours (0..255) by its luma: a black-and-white print, tinted."""
    luma = (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    low, high = (pixels.new_tensor(colour).view(1, 3, 1, 1) / 127.5 - 1 for colour in (shadows, lights))
    return torch.lerp(low, high, (luma + 1) / 2)


STYLES: Mapping[str, Style] = MappingProxyType({
    "plain": plain,
    "safelight": partial(duotone, shadows=(18, 2, 4), lights=(246, 58, 44)),  # a print in the light of a red lamp
    "sepia": partial(duotone, shadows=(52, 28, 12), lights=(246, 226, 188)),  # a toned print on cream paper
    "cyanotype": partial(duotone, shadows=(8, 34, 92), lights=(214, 232, 246)),
})
