"""A picture through a function in overlapping tiles, joined without seams, row of tiles by row of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Run = Callable[[np.ndarray, int, int], np.ndarray]
"""Takes a tile [height, width, channels] in 0 to 1, and where its left and top are in the picture."""


@dataclass(frozen=True)
class Tiles:
    """Square tiles of ``side`` pixels that overlap by at least ``overlap`` where there are several.

    Of an overlap the outer three eighths of either tile, which lack what is around them, are left out; in the quarter
    between them one goes over into the other. Hence a network that sees no further than three eighths of it leaves no
    trace of the tiles.
    """

    side: int
    overlap: int = 32

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Return where tiles begin and end along a side of ``length`` pixels: all of one size, evenly spread."""
        if length <= self.side:
            return [(0, length)]
        overlap = min(self.overlap, self.side // 2)
        count = -(-(length - overlap) // (self.side - overlap))
        starts = [round(i * (length - self.side) / (count - 1)) for i in range(count)]
        return [(start, start + self.side) for start in starts]

    def count(self, width: int, height: int) -> int:
        """Return how many tiles a picture takes."""
        return len(self.spans(width)) * len(self.spans(height))


def in_tiles(run: Run, pixels: np.ndarray, tiles: Tiles, scale: int) -> Iterator[np.ndarray]:
    """Give ``run`` of all ``pixels`` [height, width, channels], ``scale`` times as large, as rows from top to bottom.

    ``pixels`` are whole numbers of 8 or 16 bits; ``run`` is given them as 0 to 1. What is held at a time is one row
    of tiles.
    """
    height, width = pixels.shape[:2]
    columns, lines = tiles.spans(width), tiles.spans(height)
    tail = np.empty((0, width * scale, pixels.shape[2]), np.float32)
    for i, (top, bottom) in enumerate(lines):
        band = _joined(run, pixels[top:bottom], columns, top, scale)
        shared = tail.shape[0]
        if shared:
            band[:shared] = _mixed(tail, band[:shared], 0)
        finished = (lines[i + 1][0] - top) * scale if i + 1 < len(lines) else band.shape[0]
        yield band[:finished]
        tail = band[finished:].copy()


def _joined(run: Run, strip: np.ndarray, columns: list[tuple[int, int]], top: int, scale: int) -> np.ndarray:
    """Return ``run`` of a strip that is one tile high and begins at the row ``top``."""
    full = np.float32(np.iinfo(strip.dtype).max)
    band = np.empty((strip.shape[0] * scale, strip.shape[1] * scale, strip.shape[2]), np.float32)
    reached = 0
    for left, right in columns:
        tile = run(strip[:, left:right].astype(np.float32) / full, left, top)
        shared = reached - left * scale
        if shared > 0:
            before = band[:, left * scale:reached]
            before[:] = _mixed(before, tile[:, :shared], 1)
        band[:, max(reached, left * scale):right * scale] = tile[:, max(shared, 0):]
        reached = right * scale
    return band


def _mixed(before: np.ndarray, after: np.ndarray, axis: int) -> np.ndarray:
    """Return what goes over from ``before`` into ``after`` along ``axis`` in the quarter in the middle."""
    length = before.shape[axis]
    place = (np.arange(length, dtype=np.float32) + 0.5) / length
    share = np.clip((place - 0.375) / 0.25, 0.0, 1.0).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return np.asarray(before + (after - before) * share)
