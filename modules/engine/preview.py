"""Small pictures of the state of sampling: a linear map of the latent, or TAESD where its file is present."""

from __future__ import annotations

import torch
from PIL import Image

from modules.families import preview as decoders
from modules.families.base import LatentFormat
from modules.imaging.grids import grid, row_count
from modules.library.files import VAE_APPROX, Library


class Previewer:
    """Turns latents into a preview; keeps the small decoder of each latent format that it has used."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._decoders: dict[str, decoders.Decoder | None] = {}

    def image(self, x0: torch.Tensor, latent: LatentFormat, method: str) -> Image.Image:
        """Return a grid of the pictures estimated by ``x0`` [pictures, channels, height, width]."""
        decoder = self._decoder(latent) if method == "TAESD" else None
        pixels = decoder(x0) if decoder else decoders.linear(x0, latent)
        return grid([to_image(item) for item in pixels], row_count(len(pixels)))

    def clear(self) -> None:
        """Forget the small decoders."""
        self._decoders.clear()

    def _decoder(self, latent: LatentFormat) -> decoders.Decoder | None:
        name = latent.preview_decoder
        if name and name not in self._decoders:
            file = next((file for file in self._library.files(VAE_APPROX) if file.stem == name), None)
            self._decoders[name] = decoders.taesd(file.path) if file else None
        return self._decoders.get(name)


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Return pixels [3, height, width] in 0..1 as a PIL image, rounded to the nearest of 256 values."""
    rounded = pixels.float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return Image.fromarray(rounded.permute(1, 2, 0).contiguous().numpy())
