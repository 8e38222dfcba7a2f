"""A picture through a model that enlarges by a fixed factor, as often as its size asks for, in tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modules.core.errors import OutOfMemory
from modules.runtime.exhaustion import is_out_of_memory
from modules.upscaling.pixels import Picture
from modules.upscaling.rows import Size, collected, resized
from modules.upscaling.tiles import Run, Tiles, in_tiles

# A network that makes too little of a picture is asked again, as often as in A1111.
MAX_PASSES = 3

Once = Callable[[np.ndarray, Size], np.ndarray]
"""Takes a picture [height, width, 3] once through a model and returns it at a size (width, height)."""


@dataclass(frozen=True)
class Tiling:
    """How a model of ``scale`` is given a picture: in ``tiles``, no smaller than ``smallest``.

    ``release`` gives back memory before smaller tiles are tried.
    """

    tiles: Tiles
    scale: int
    smallest: int
    release: Callable[[], None]


def enlarged(picture: Picture, size: Size, scale: int, once: Once) -> Picture:
    """Return ``picture`` at ``size``: by a model of ``scale`` until it is as large, then by Lanczos, as its alpha is.

    The model is asked once at least where the size stays, so that one that only cleans does.
    """
    pixels, alpha = picture.pixels, picture.alpha
    for made in range(MAX_PASSES):
        height, width = pixels.shape[:2]
        covers = width >= size[0] and height >= size[1]
        if covers and (made or (width, height) != size):
            break
        full = width * scale, height * scale
        last = scale == 1 or made + 1 == MAX_PASSES or (full[0] >= size[0] and full[1] >= size[1])
        pixels = once(pixels, size if last else full)
        if last:
            break
    return Picture(resized(pixels, size), None if alpha is None else resized(alpha, size))


def through(name: str, pixels: np.ndarray, size: Size, tiling: Tiling, begin: Callable[[Tiles], Run]) -> np.ndarray:
    """Return ``pixels`` through what ``begin`` returns for some tiles, and at ``size``.

    Where memory ends, tiles are half as large. Raises ``OutOfMemory`` saying ``name`` where they cannot be.
    """
    height, width = pixels.shape[:2]
    tiles, scale = tiling.tiles, tiling.scale
    while True:
        try:
            rows = in_tiles(begin(tiles), pixels, tiles, scale)
            return collected(rows, (width * scale, height * scale), size, pixels.dtype)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        tiling.release()
        if tiles.side <= tiling.smallest:
            raise OutOfMemory(f"Out of memory while {name} enlarged a picture of {width}x{height}.",
                              "A smaller picture, or another upscaler, needs less.")
        tiles = dataclasses.replace(tiles, side=max(tiling.smallest, tiles.side // 2))
