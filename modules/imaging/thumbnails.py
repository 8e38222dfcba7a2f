"""Small pictures for previews."""

from __future__ import annotations

import io

from PIL import Image


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """Return ``image`` in RGB, reduced so that no side exceeds ``side`` pixels; a smaller one keeps its size."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return small


def encode_jpeg(image: Image.Image, quality: int = 80, max_side: int | None = None) -> bytes:
    """Return ``image`` as a baseline JPEG, reduced to ``max_side`` pixels first if it is given."""
    buffer = io.BytesIO()
    shown = thumbnail(image, max_side) if max_side else image.convert("RGB")
    shown.save(buffer, "JPEG", quality=quality, progressive=False)
    return buffer.getvalue()
