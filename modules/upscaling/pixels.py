"""A picture as colours and alpha apart, in 8 or 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class Picture:
    """``pixels`` [height, width, 3] and ``alpha`` [height, width, 1] or None, whole numbers of 8 or 16 bits."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


def opened(image: Image.Image) -> Picture:
    """Return a PIL picture of any mode that PIL converts to colours."""
    if image.has_transparency_data:
        values = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(values[:, :, :3]), values[:, :, 3:])
    return Picture(np.asarray(image.convert("RGB")))


def shown(picture: Picture) -> Image.Image:
    """Return a picture of 8 bits as PIL has it."""
    if picture.alpha is None:
        return Image.fromarray(picture.pixels)
    return Image.fromarray(np.concatenate([picture.pixels, picture.alpha], 2))
