"""Several pictures as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

BACKGROUND = "#ffffff"


def row_count(pictures: int, setting: int = -1, batch_size: int = 1, prevent_empty_spots: bool = False) -> int:
    """Return how many rows a grid of ``pictures`` has, as A1111 counts.

    ``setting`` above 0 is the count itself, 0 makes it ``batch_size``, -1 chooses the square root: rounded to the
    nearest, or with ``prevent_empty_spots`` the largest divisor of ``pictures`` that does not exceed it.
    """
    if setting > 0:
        rows = setting
    elif setting == 0:
        rows = batch_size
    elif prevent_empty_spots:
        rows = next(row for row in range(math.isqrt(pictures), 0, -1) if pictures % row == 0)
    else:
        rows = round(math.sqrt(pictures))
    return max(1, min(rows, pictures))


def grid(images: Sequence[Image.Image], rows: int) -> Image.Image:
    """Return ``images`` side by side in ``rows`` rows, filled row by row; cells are as large as the largest picture.

    Raises ``ValueError`` without pictures.
    """
    if not images:
        raise ValueError("a grid needs at least one picture")
    rows = max(1, min(rows, len(images)))
    columns = math.ceil(len(images) / rows)
    width, height = (max(sizes) for sizes in zip(*(image.size for image in images), strict=True))
    result = Image.new("RGB", (columns * width, rows * height), BACKGROUND)
    for index, image in enumerate(images):
        result.paste(image, (index % columns * width, index // columns * height))
    return result
