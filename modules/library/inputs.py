"""Pictures that come in: decoded once, safely, and kept under the hash of their pixels."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from modules.core.errors import DarkroomError, DiskFull, InvalidRequest, NotFound
from modules.library.images import BROKEN, FORMATS, MAX_FILE_BYTES
from modules.library.sixteen_bit import DEPTH, bit_depth

MAX_INPUT_PIXELS = 8192 * 8192
MAX_INPUT_SIDE = 65_500
PARTIAL = ".part"

_LIMIT = f"Up to {MAX_INPUT_PIXELS // 1024**2} megapixels are accepted, 8192x8192 for a square one."
_ID = re.compile(r"[0-9a-f]{32}")
_GREY = ("1", "L")
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Input:
    """A stored picture: its id (32 hexadecimal digits) and its size in pixels."""

    id: str
    width: int
    height: int


class Inputs:
    """PNG files in one folder, named by their content; several threads and processes may write at once.

    A picture is L, RGB or RGBA with 8 bits and carries no metadata, but for those that ``keep`` leaves as they are.
    One whose alpha is full everywhere is RGB.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> Input:
        """Store an encoded picture; see ``decoded``. Raises ``InvalidRequest`` or ``DiskFull``."""
        return self.add(decoded(data))

    def keep(self, data: bytes) -> Input:
        """Store an encoded picture as ``put`` does, but a PNG of 16 bits as it is, for ``open`` sees 8 of them."""
        if bit_depth(data) < DEPTH:
            return self.put(data)
        stored = Input(hashlib.sha256(b"16 " + data).hexdigest()[:32], *decoded(data).size)
        self._keep(stored.id, lambda file: file.write(data))
        return stored

    def add(self, image: Image.Image) -> Input:
        """Store a picture of any mode that ``plain`` understands; the same pixels get the same id."""
        image = plain(image)
        key = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()[:32]
        self._keep(key, lambda file: image.save(file, "PNG", compress_level=1))
        return Input(key, *image.size)

    def path(self, key: str) -> Path:
        """Return the file of a stored picture; raises ``NotFound``."""
        if not _ID.fullmatch(key) or not self._path(key).is_file():
            raise NotFound("This picture is no longer stored.", "Choose it again.")
        return self._path(key)

    def open(self, key: str) -> Image.Image:
        """Return a stored picture, its pixels loaded; raises ``NotFound``, or ``InvalidRequest`` for a broken file."""
        with _readable(), Image.open(self.path(key), formats=("PNG",)) as image:
            image.load()
            return plain(image) if image.mode in _DEEP else image

    def get(self, key: str) -> Input:
        """Return id and size of a stored picture without decoding it; raises as ``open``."""
        with _readable(), Image.open(self.path(key), formats=("PNG",)) as image:
            return Input(key, *image.size)

    def flattened(self, picture: str, layer: str) -> Input:
        """Store ``picture`` with a layer of the same size over it (Porter-Duff "over"); raises ``InvalidRequest``."""
        below, above = self.open(picture).convert("RGBA"), self.open(layer).convert("RGBA")
        if below.size != above.size:
            raise InvalidRequest(f"The picture has {below.width}x{below.height} pixels and what was painted over it "
                                 f"{above.width}x{above.height}.", "Choose the picture again.")
        return self.add(Image.alpha_composite(below, above))

    def coverage(self, layer: str) -> Input:
        """Store where a layer is painted, its alpha, as a mask: L, white where it is opaque."""
        return self.add(self.open(layer).convert("RGBA").getchannel("A"))

    def prune(self, keep: Collection[str], older_than: float, now: float | None = None) -> int:
        """Delete what is not in ``keep`` and was not brought for ``older_than`` seconds; return how many files."""
        limit = (time.time() if now is None else now) - older_than
        removed = 0
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            ours = path.name.endswith(PARTIAL) or (path.suffix == ".png" and _ID.fullmatch(path.stem))
            with suppress(OSError):
                if ours and path.stem not in keep and path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.png"

    def _keep(self, key: str, save: Callable[[IO[bytes]], object]) -> None:
        path = self._path(key)
        try:
            os.utime(path)  # prune counts from the last time that somebody brought it
        except OSError:
            self._write(path, save)

    def _write(self, path: Path, save: Callable[[IO[bytes]], object]) -> None:
        partial = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=PARTIAL, delete=False) as file:
                partial = file.name
                save(file)
            os.replace(partial, path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(partial)
            kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DarkroomError
            raise kind(f"The picture could not be stored: {error.strerror or error}.",
                       "Free some space, or choose another folder with --data-dir.") from error


def decoded(data: bytes) -> Image.Image:
    """Return an encoded picture as ``plain`` does, turned upright by its EXIF orientation; of animations the first.

    Raises ``InvalidRequest`` for what is no picture, is damaged, or has more than 8192² pixels.
    """
    if not data:
        raise InvalidRequest("There is no picture.", "Choose a PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF file.")
    if len(data) > MAX_FILE_BYTES:
        raise InvalidRequest(f"The file has more than {MAX_FILE_BYTES // 1024**2} MiB.")
    with _readable(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.size)
        image.load()
        return plain(ImageOps.exif_transpose(image))


def plain(image: Image.Image) -> Image.Image:
    """Return ``image`` as L, RGB or RGBA with 8 bits, without metadata.

    16 bits lose their lower byte, as in PIL's own reading of colours; floats are taken as 0 to 1, or as 0 to 255
    where one exceeds 1. An alpha channel that is full everywhere is dropped. Raises ``ValueError`` for a mode that
    PIL cannot convert.
    """
    if image.mode in _DEEP:
        image = Image.fromarray((np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        image = _from_floats(np.nan_to_num(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    else:
        image = image.convert("L" if image.mode in _GREY else "RGB")
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    image = image.copy()
    image.info = {}
    return image


def _from_floats(values: np.ndarray) -> Image.Image:
    scaled = values * 255.0 if values.size and values.max() <= 1.0 else values
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_INPUT_PIXELS or max(size) > MAX_INPUT_SIDE:
        raise InvalidRequest(f"A picture of {width}x{height} pixels is too large.", _LIMIT)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what PIL raises for broken files into ``InvalidRequest``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    except Image.DecompressionBombError as error:
        raise InvalidRequest("The picture is too large.", _LIMIT) from error
    except BROKEN as error:
        # PIL's own words for what is no picture name an object in memory.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is no picture" if unknown else str(error)[:200] or "it is damaged"
        raise InvalidRequest(f"The picture cannot be read: {reason}.",
                             "PNG, JPEG, WebP, AVIF, GIF, BMP and TIFF are understood.") from error
