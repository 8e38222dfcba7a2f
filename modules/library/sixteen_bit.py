"""Pictures of 16 bits a channel, which PIL neither reads nor writes in colour; as files they are PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image, PngImagePlugin

DEPTH = 16

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to PNG's types: grey, grey and alpha, RGB, RGBA
# PIL's ways to turn a picture: mirrored first or not, then so many quarters against the clock.
_MIRRORED = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE,
             Image.Transpose.TRANSVERSE)
_QUARTERS: Mapping[Image.Transpose, int] = MappingProxyType({
    Image.Transpose.FLIP_LEFT_RIGHT: 0, Image.Transpose.TRANSPOSE: 1, Image.Transpose.FLIP_TOP_BOTTOM: 2,
    Image.Transpose.TRANSVERSE: 3, Image.Transpose.ROTATE_90: 1, Image.Transpose.ROTATE_180: 2,
    Image.Transpose.ROTATE_270: 3,
})
_UP = 2
_LEVEL = 3


@dataclass(frozen=True, eq=False)
class DeepImage:
    """A picture: ``pixels`` [height, width, channels] are whole numbers of 16 bits, alpha last where there is one.

    What cuts, turns and resizes it has the names and arguments of PIL's, so that what does so to one does to the other.
    """

    pixels: np.ndarray

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def crop(self, box: tuple[int, int, int, int]) -> DeepImage:
        """Return the part ``box`` (left, top, right, bottom), which is within the picture."""
        left, top, right, bottom = box
        return DeepImage(np.ascontiguousarray(self.pixels[top:bottom, left:right]))

    def transpose(self, method: Image.Transpose) -> DeepImage:
        """Return the picture turned or mirrored, as PIL's constant says."""
        mirrored = self.pixels[:, ::-1] if method in _MIRRORED else self.pixels
        return DeepImage(np.ascontiguousarray(np.rot90(mirrored, _QUARTERS[method])))

    def resize(self, size: tuple[int, int], resample: Image.Resampling = Image.Resampling.BICUBIC,
               box: tuple[float, float, float, float] | None = None) -> DeepImage:
        """Return the picture, or the part ``box`` of it, at ``size``."""
        channels = (Image.fromarray(self.pixels[:, :, i].astype(np.float32)).resize(size, resample, box)
                    for i in range(self.pixels.shape[2]))
        return DeepImage(np.rint(np.stack([np.asarray(one) for one in channels], 2)).clip(0, 65535).astype(np.uint16))

    def convert(self, mode: str) -> Image.Image:
        """Return the picture in 8 bits and another of PIL's modes."""
        return self.shallow().convert(mode)

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
