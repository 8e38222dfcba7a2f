"""A picture as colours and alpha apart, in 8 or 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from modules.library.sixteen_bit import DEPTH, DeepImage, bit_depth


@dataclass(frozen=True, eq=False)
class Picture:
    """``pixels`` [height, width, 3] and ``alpha`` [height, width, 1] or None, whole numbers of 8 or 16 bits."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


def opened_file(path: Path, image: Image.Image) -> Picture:
    """Return the picture in a PNG file, whose pixels in 8 bits are ``image``, in 16 bits where the file has them."""
    with path.open("rb") as file:
        deep = bit_depth(file.read(32)) == DEPTH
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if deep else None
    if values is None or values.dtype != np.uint16:
        return opened(image)
    if values.ndim == 2:
        return Picture(np.repeat(values[:, :, None], 3, 2))
    return Picture(np.ascontiguousarray(values[:, :, 2::-1]), values[:, :, 3:] if values.shape[2] == 4 else None)


def opened(image: Image.Image | DeepImage) -> Picture:
    """Return a picture of 16 bits, or a PIL picture of any mode that PIL converts to colours."""
    if isinstance(image, DeepImage):
        return Picture(image.pixels[:, :, :3], image.pixels[:, :, 3:] if image.pixels.shape[2] == 4 else None)
    if image.has_transparency_data:
        values = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(values[:, :, :3]), values[:, :, 3:])
    return Picture(np.asarray(image.convert("RGB")))


def as_deep_as(other: Picture, picture: Picture) -> Picture:
    """Return a picture of 8 bits in 16 where ``other`` has 16, so that both can be mixed."""
    if other.pixels.dtype == picture.pixels.dtype:
        return picture
    return Picture(_deepened(picture.pixels), None if picture.alpha is None else _deepened(picture.alpha))


def _deepened(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16) * np.uint16(257)


def shown(picture: Picture) -> Image.Image:
    """Return a picture in 8 bits as PIL has it."""
    made = saved(picture)
    return made.shallow() if isinstance(made, DeepImage) else made


def saved(picture: Picture) -> Image.Image | DeepImage:
    """Return a picture as it is written to a file."""
    whole = picture.pixels if picture.alpha is None else np.concatenate([picture.pixels, picture.alpha], 2)
    return DeepImage(whole) if whole.dtype == np.uint16 else Image.fromarray(whole)
