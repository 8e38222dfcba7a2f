"""Pictures made larger: the upscalers that need no model, and the names of those that work on latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from PIL import Image

# AUTOMATIC1111's names, each with torch's interpolation mode and whether what is made smaller is smoothed before.
LATENT_UPSCALERS: Mapping[str, tuple[str, bool]] = MappingProxyType({
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
})


class Upscaler(Protocol):
    """Whatever makes a picture larger."""

    @property
    def name(self) -> str:
        """What the page and the infotext call it."""

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return ``image`` in ``width`` by ``height`` pixels."""


@dataclass(frozen=True)
class Resampler:
    """An upscaler that only resamples."""

    name: str
    filter: Image.Resampling

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return ``image`` in ``width`` by ``height`` pixels; itself where it has that size."""
        return image if image.size == (width, height) else image.resize((width, height), self.filter)


# "None" resizes as AUTOMATIC1111's does.
RESAMPLERS: Mapping[str, Upscaler] = MappingProxyType({
    upscaler.name: upscaler for upscaler in (
        Resampler("None", Image.Resampling.LANCZOS),
        Resampler("Lanczos", Image.Resampling.LANCZOS),
        Resampler("Nearest", Image.Resampling.NEAREST),
        Resampler("Bicubic", Image.Resampling.BICUBIC),
    )
})


JUST_RESIZE, CROP_AND_RESIZE, RESIZE_AND_FILL, LATENT_UPSCALE = range(4)


def fitted(image: Image.Image, width: int, height: int, mode: int,
           upscaler: Upscaler = RESAMPLERS["Lanczos"]) -> Image.Image:
    """Return ``image`` in ``width`` by ``height`` pixels as A1111's resize modes 0 to 2 do.

    Stretched; or so that it covers them, its middle kept; or so that it fits in, the outermost pixels repeated.
    ``upscaler`` makes it larger; what is made smaller is resampled.
    """
    if mode == JUST_RESIZE or image.width * height == image.height * width:
        return _sized(image, width, height, upscaler)
    by_width = (image.width * height > image.height * width) == (mode == RESIZE_AND_FILL)
    size = (width, max(1, image.height * width // image.width)) if by_width else (
        max(1, image.width * height // image.height), height)
    resized = _sized(image, size[0], size[1], upscaler)
    left, top = width // 2 - size[0] // 2, height // 2 - size[1] // 2
    if mode == CROP_AND_RESIZE:
        return resized.crop((-left, -top, width - left, height - top))
    return extended(resized, (left, top, width - size[0] - left, height - size[1] - top))


def _sized(image: Image.Image, width: int, height: int, upscaler: Upscaler) -> Image.Image:
    larger = width > image.width or height > image.height
    return (upscaler if larger else RESAMPLERS["Lanczos"]).upscale(image, width, height)


def extended(image: Image.Image, margins: tuple[int, int, int, int]) -> Image.Image:
    """Return ``image`` with its outermost pixels repeated: to the left, upwards, to the right and downwards."""
    left, top, right, bottom = margins
    around = [(top, bottom), (left, right), (0, 0)][:np.asarray(image).ndim]
    return Image.fromarray(np.pad(np.asarray(image), around, mode="edge"))
