"""Looks that an adapter can learn: transformations of whole pictures, [n, 3, h, w] in -1..1, without randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from modules.training.compose import LUMA

Colour = tuple[int, int, int]
Style = Callable[[torch.Tensor], torch.Tensor]


def plain(pixels: torch.Tensor) -> torch.Tensor:
    """Return the pictures as they are."""
    return pixels


@dataclass(frozen=True)
class Duotone:
    """A black-and-white print, tinted: each pixel is a mixture of two colours (0..255).

    The share of ``shadows`` is the pixel's density, one minus its luma, to the power of ``gamma``.
    """

    lights: Colour
    shadows: Colour
    gamma: float = 1.0

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        luma = (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        light, shadow = (pixels.new_tensor(end).view(1, 3, 1, 1) / 127.5 - 1 for end in (self.lights, self.shadows))
        return torch.lerp(light, shadow, ((1 - luma) / 2).clamp(0, 1) ** self.gamma)


SEPIA = Duotone(lights=(246, 226, 188), shadows=(52, 28, 12))
# Negatives: what was white is dark.
SAFELIGHT = Duotone(lights=(14, 2, 6), shadows=(255, 74, 52), gamma=0.5)
BLUEPRINT = Duotone(lights=(34, 84, 196), shadows=(236, 244, 255), gamma=0.5)
STYLES: Mapping[str, Style] = MappingProxyType(
    {"plain": plain, "sepia": SEPIA, "safelight": SAFELIGHT, "blueprint": BLUEPRINT}
)
