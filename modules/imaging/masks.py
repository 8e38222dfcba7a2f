"""Masks: pictures of one channel, white (255) where to repaint."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from modules.imaging.resize import CROP_AND_RESIZE, fitted

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the last two exclusive."""

# Radii in pixels from wide to narrow, and how often each is laid over: near a known pixel its own colour prevails.
FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def mask_of(image: Image.Image, rounded: bool = True, invert: bool = False) -> Image.Image:
    """Return the mask that ``image`` shows: its alpha where it has any, ``rounded`` to all or nothing, else its grey.

    What A1111 takes of a picture painted over, and of an uploaded mask.
    """
    if image.mode == "RGBA":
        mask = image.getchannel("A")
        mask = mask.point(lambda value: 255 if value > 128 else 0) if rounded else mask
    else:
        mask = image.convert("L")
    return ImageOps.invert(mask) if invert else mask


def blurred(mask: Image.Image, x: float, y: float) -> Image.Image:
    """Return ``mask`` under a Gaussian of deviations ``x`` and ``y`` pixels, cut off at 2.5 of them as in A1111."""
    values = np.asarray(mask, dtype=np.float32)
    for axis, deviation in ((1, x), (0, y)):
        if deviation > 0:
            values = _convolved(values, _gaussian(deviation), axis)
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


def doubled(mask: Image.Image) -> Image.Image:
    """Return ``mask`` twice as strong, so that what is half repainted is shown as repainted; 0 stays 0."""
    return mask.point(lambda value: min(2 * value, 255))


def region(mask: Image.Image, padding: int, width: int, height: int) -> Box:
    """Return the part around what is not black, ``padding`` pixels wider, in the proportions of width to height.

    It stays inside of the mask, so that near an edge the proportions may be missed. Raises ``ValueError`` for a mask
    that is black all over.
    """
    found = mask.getbbox()
    if found is None:
        raise ValueError("the mask is empty")
    left, top = max(found[0] - padding, 0), max(found[1] - padding, 0)
    right, bottom = min(found[2] + padding, mask.width), min(found[3] + padding, mask.height)
    wide, high = right - left, bottom - top
    if wide * height > high * width:
        top, bottom = _widened(top, bottom, int(wide * height / width), mask.height)
    else:
        left, right = _widened(left, right, int(high * width / height), mask.width)
    return left, top, right, bottom


def filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return RGB ``image`` with the colours around ``mask`` spread into it, from far to near."""
    known = Image.new("RGBa", image.size)
    known.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    result = Image.new("RGBA", image.size)
    for radius, times in FILL_BLURS:
        layer = known.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(layer)
    return result.convert("RGB")


def latent_mask(mask: Image.Image, width: int, height: int, rounded: bool) -> np.ndarray:
    """Return ``mask`` for latents: float32 [height, width] in 0..1, 1 where to repaint; ``rounded`` to 0 or 1."""
    small = np.asarray(mask.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    return np.around(small) if rounded else small


def pasted(image: Image.Image, original: Image.Image, mask: Image.Image, box: Box | None = None) -> Image.Image:
    """Return ``original`` with ``image`` in ``box`` (all of it without) where ``mask`` is not black.

    ``mask`` has the size of ``original``. Where it is 0 pixels are those of ``original``, to the bit.
    """
    if box is not None:
        piece = fitted(image, box[2] - box[0], box[3] - box[1], CROP_AND_RESIZE)
        image = original.copy()
        image.paste(piece, box)
    return Image.composite(image, original, mask)


def _widened(low: int, high: int, length: int, limit: int) -> tuple[int, int]:
    missing = max(0, length - (high - low))
    low, high = low - missing // 2, high + missing - missing // 2
    low, high = (low - max(0, high - limit), min(high, limit))
    low, high = max(low, 0), high + max(0, -low)
    return low, min(high, limit)


def _gaussian(deviation: float) -> np.ndarray:
    radius = int(2.5 * deviation + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _convolved(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return ``values`` weighted along an axis; beyond its ends they are mirrored."""
    radius, length = len(weights) // 2, values.shape[axis]
    around = [(radius, radius) if one == axis else (0, 0) for one in range(2)]
    padded = np.pad(values, around, mode="reflect")
    result = np.zeros_like(values)
    for place, weight in enumerate(weights):
        result += weight * np.take(padded, range(place, place + length), axis=axis)
    return result
