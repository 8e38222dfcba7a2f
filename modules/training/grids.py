"""Contact sheets of tensors."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from PIL import Image

logger = logging.getLogger(__name__)


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Return [3, h, w] in -1..1 as a picture."""
    values = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())


def grid(pixels: torch.Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Return [n, 3, h, w] in rows of ``columns`` on grey."""
    height, width = pixels.shape[-2:]
    rows = -(-len(pixels) // columns)
    size = (columns * (width + gap) + gap, rows * (height + gap) + gap)
    sheet = Image.new("RGB", size, (128, 128, 128))
    for index, picture in enumerate(pixels):
        row, column = divmod(index, columns)
        sheet.paste(to_image(picture), (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def save_grid(pixels: torch.Tensor, path: Path, columns: int, caption: str = "") -> None:
    """Write a contact sheet as PNG and log where, with ``caption``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(pixels, columns).save(path)
    logger.info("%s  %s", path.name, caption)
