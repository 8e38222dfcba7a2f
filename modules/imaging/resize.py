"""Pictures made larger: the upscalers that need no model, and the names of those that work on latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

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
