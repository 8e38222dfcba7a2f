"""Embeddings inside pictures: as base64 JSON in a text chunk, or in the low four bits of the pixels.

The second form is two blocks at the left and the right of the picture, parted from it by a column whose low bits are
zero: the low and the high halves of zlib-compressed JSON, mixed with a linear congruential sequence.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modules.plugin import InvalidModel

CHUNK = "sd-ti-embedding"
MAX_PIXELS = 16_000_000
MAX_JSON = 64 * 1024 * 1024
MULTIPLIER, INCREMENT, MODULUS, SPREAD = 1664525, 1013904223, 2**32, 255

Pixels: TypeAlias = NDArray[np.uint8]


def read_picture(path: Path) -> dict[str, Any] | None:
    """Return the embedding in a picture, its vectors as float32 arrays; None where the picture holds none.

    Raises ``InvalidModel`` for an embedding that is damaged and for what is no picture.
    """
    try:
        with Image.open(path, formats=("PNG", "WEBP", "AVIF")) as image:
            text = getattr(image, "text", {}).get(CHUNK)
            if text:
                return _decoded(base64.b64decode(text), path)
            if image.width * image.height > MAX_PIXELS:
                return None
            return _hidden(np.asarray(image.convert("RGB")), path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, binascii.Error) as error:
        raise InvalidModel(f"{path.name} cannot be read: {error}.", "Download it again.") from error


def _hidden(pixels: Pixels, path: Path) -> dict[str, Any] | None:
    bits = _without_border(pixels) & 0x0F
    empty = np.flatnonzero(bits.sum(axis=(0, 2)) == 0)
    if len(empty) < 2:
        return None
    low, high = _unmixed(bits[:, :empty.min()]), _unmixed(bits[:, empty.max() + 1:])
    if low.shape != high.shape or not low.size:
        return None
    decompress = zlib.decompressobj()
    try:
        data = decompress.decompress(((high << 4) | low).tobytes(), MAX_JSON)
    except zlib.error:
        return None  # an ordinary picture with two dark columns
    return _decoded(data, path)


def _without_border(pixels: Pixels) -> Pixels:
    lit = (pixels > 0).all(axis=2)
    columns, rows = np.flatnonzero(lit.any(axis=0)), np.flatnonzero(lit.any(axis=1))
    if not len(columns):
        return pixels[:0, :0]
    return pixels[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def _unmixed(block: Pixels) -> Pixels:
    return block ^ (sequence(block.size).reshape(block.shape) & 0x0F)


def sequence(length: int) -> Pixels:
    """Return the first numbers of the sequence that the bits are mixed with, from seed 0."""
    seeds = np.array([INCREMENT], dtype=np.uint64)
    factor, offset = MULTIPLIER, INCREMENT
    while len(seeds) < length:
        # So many steps at once: x becomes factor * x + offset.
        seeds = np.concatenate([seeds, (seeds * np.uint64(factor) + np.uint64(offset)) % np.uint64(MODULUS)])
        factor, offset = factor * factor % MODULUS, (factor * offset + offset) % MODULUS
    return (seeds[:length] % np.uint64(SPREAD)).astype(np.uint8)


def _decoded(data: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(data, object_hook=_tensor)
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidModel(f"The embedding in {path.name} is damaged: {error}.", "Download it again.") from error
    if not isinstance(found, dict):
        raise InvalidModel(f"{path.name} holds no embedding.")
    return found


def _tensor(value: dict[str, Any]) -> Any:
    return np.array(value["TORCHTENSOR"], dtype=np.float32) if "TORCHTENSOR" in value else value
