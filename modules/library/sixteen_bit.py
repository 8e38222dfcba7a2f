"""Pictures of 16 bits a channel, which PIL neither reads nor writes in colour; as files they are PNG."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, PngImagePlugin

DEPTH = 16

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to PNG's types: grey, grey and alpha, RGB, RGBA
_UP = 2
_LEVEL = 3


@dataclass(frozen=True, eq=False)
class DeepImage:
    """A picture: ``pixels`` [height, width, channels] are whole numbers of 16 bits, alpha last where there is one."""

    pixels: np.ndarray

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0])

    def shallow(self) -> Image.Image:
        """Return the picture in 8 bits."""
        # 255 goes into 65535 257 times.
        eight: np.ndarray = ((self.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return Image.fromarray(eight[:, :, 0] if eight.shape[2] == 1 else eight)


def bit_depth(data: bytes) -> int:
    """Return the bits of a channel that the header of a PNG says; 8 for any other file."""
    return data[24] if data[:8] == _SIGNATURE and data[12:16] == b"IHDR" and len(data) > 24 else 8


def png(image: DeepImage, text: PngImagePlugin.PngInfo) -> bytes:
    """Return ``image`` as the content of a PNG file with the chunks of ``text`` in it."""
    height, width, channels = image.pixels.shape
    header = struct.pack(">2I5B", width, height, DEPTH, _COLOURS[channels], 0, 0, 0)
    rows: np.ndarray = image.pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", header), *((bytes(kind), bytes(content)) for kind, content, *_ in text.chunks),
              (b"IDAT", zlib.compress(filtered, _LEVEL)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
