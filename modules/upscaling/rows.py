"""A picture that comes as rows, brought to its size and depth without ever being whole at another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

Size = tuple[int, int]

# How many times its step Lanczos' window reaches to either side.
_REACH = 3


def collected(rows: Iterable[np.ndarray], source: Size, size: Size, dtype: np.dtype) -> np.ndarray:
    """Return the picture of ``source`` (width, height) pixels that ``rows`` are, at ``size``, as Lanczos resizes it.

    ``rows`` are 0 to 1, the result whole numbers of ``dtype``, 8 or 16 bits.
    """
    top = np.iinfo(dtype).max
    whole = (np.rint(part * top).clip(0, top).astype(dtype) for part in rows)
    made = whole if size == source else _resized(whole, source, size)
    picture: np.ndarray | None = None
    at = 0
    for part in made:
        if picture is None:
            picture = np.empty((size[1], size[0], part.shape[2]), dtype)
        picture[at:at + len(part)] = part
        at += len(part)
    if picture is None or at != size[1]:
        raise ValueError(f"There are {at} rows of {size[1]}.")
    return picture


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Return ``pixels`` [height, width, channels] of 8 or 16 bits at ``size`` (width, height), as Lanczos resizes."""
    height, width = pixels.shape[:2]
    return pixels if (width, height) == size else _lanczos(pixels, size, (0, 0, width, height))


def _resized(rows: Iterable[np.ndarray], source: Size, size: Size) -> Iterator[np.ndarray]:
    """Give each row of the result once all that it is made from is there, and forget what no further one needs."""
    step = source[1] / size[1]
    reach = math.ceil(_REACH * max(1.0, step)) + 1
    held, first, done = np.empty((0, 0, 0)), 0, 0
    for part in rows:
        held = part if not len(held) else np.concatenate([held, part])
        there = first + len(held)
        ready = size[1] if there == source[1] else max(done, int((there - reach) / step))
        if ready <= done:
            continue
        box = (0, done * step - first, source[0], ready * step - first)
        yield _lanczos(held, (size[0], ready - done), box)
        done = ready
        unneeded = max(0, min(int(done * step) - reach - first, len(held)))
        held, first = held[unneeded:], first + unneeded


def _lanczos(pixels: np.ndarray, size: Size, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the part ``box`` of ``pixels`` at ``size``; what is around it counts, as it would in the whole."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box))
    limit = np.iinfo(pixels.dtype).max
    planes = [np.asarray(Image.fromarray(pixels[:, :, i].astype(np.float32)).resize(
        size, Image.Resampling.LANCZOS, box)) for i in range(pixels.shape[2])]
    return np.rint(np.stack(planes, 2)).clip(0, limit).astype(pixels.dtype)
