"""Small pictures of networks' covers, made once and kept in the cache, in the background or when one is shown."""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from modules.core.errors import DarkroomError, NotFound
from modules.core.request import MAX_PIXELS
from modules.library.headers import read_header
from modules.library.images import BROKEN, FORMATS
from modules.library.writing import write_whole

logger = logging.getLogger(__name__)

SIDE, QUALITY = 448, 82
AT_ONCE = 2  # a picture of 100 megapixels takes 300 MB while it is made smaller
MAX_COVER_BYTES = 64 * 1024 * 1024


class Covers:
    """A folder of JPEGs, each named by the cover it was made from and its state. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free = threading.Semaphore(AT_ONCE)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._wanted: Mapping[str, str] = {}
        self._making: threading.Thread | None = None

    def close(self) -> None:
        """Stop making pictures."""
        self._closing.set()
        if self._making is not None:
            self._making.join()

    def thumbnail(self, cover: str, name: str) -> Path:
        """Return the JPEG called ``name`` of the picture at ``cover``, made now where it is not there.

        Raises ``NotFound`` where there is no cover, or it is no picture.
        """
        path = self._folder / name[:2] / f"{name}.jpg"
        if not cover or not name:
            raise NotFound("This network has no cover.")
        if not path.is_file():
            with self._free:
                content = _small(cover)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content, durable=False)
        return path

    def make_all(self, wanted: Mapping[str, str]) -> None:
        """Make what is missing of ``wanted`` (covers by name) in the background, and remove what is not among it."""
        with self._lock:
            self._wanted = wanted
            if self._making is None or not self._making.is_alive():
                self._making = threading.Thread(target=self._make_wanted, name="covers", daemon=True)
                self._making.start()

    def _make_wanted(self) -> None:
        while True:
            with self._lock:
                wanted, self._wanted = self._wanted, {}
                if not wanted:
                    self._making = None
                    return
            present = {path.stem: path for path in self._folder.glob("*/*.jpg")}
            for name in present.keys() - wanted.keys():
                present[name].unlink(missing_ok=True)
            for name in wanted.keys() - present.keys():
                if self._closing.is_set() or self._wanted:
                    break
                self._make(wanted[name], name)

    def _make(self, cover: str, name: str) -> None:
        began = time.monotonic()
        try:
            self.thumbnail(cover, name)
        except (DarkroomError, OSError) as error:
            logger.info("%s is not shown: %s", cover, error)
        # Half of the time at most: the page is answered by the same process.
        self._closing.wait(time.monotonic() - began)


def embedded_cover(metadata: Mapping[str, str]) -> str:
    """Return the cover inside a safetensors file, in base64, as the ModelSpec and A1111 keep one; empty without."""
    thumbnail = metadata.get("modelspec.thumbnail", "")
    if thumbnail.startswith("data:image/"):
        return thumbnail.partition(",")[2]
    try:
        pictures = json.loads(metadata.get("ssmd_cover_images", "[]"))
    except (ValueError, RecursionError):
        return ""
    return next((one for one in pictures if isinstance(one, str)), "") if isinstance(pictures, list) else ""


def _small(cover: str) -> bytes:
    from PIL import Image

    from modules.imaging.thumbnails import encode_jpeg

    try:
        with Image.open(io.BytesIO(_content(cover)), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise NotFound(f"{Path(cover).name} is too large for a cover.")
            image.draft("RGB", (SIDE, SIDE))
            return encode_jpeg(image, QUALITY, SIDE)
    except BROKEN as error:
        raise NotFound(f"{Path(cover).name} is no picture that can be shown.") from error


def _content(cover: str) -> bytes:
    path = Path(cover)
    if path.suffix.lower() == ".safetensors":
        try:
            return base64.b64decode(embedded_cover(read_header(path).metadata))
        except binascii.Error as error:
            raise NotFound(f"The cover inside {path.name} is damaged.") from error
    if path.stat().st_size > MAX_COVER_BYTES:
        raise NotFound(f"{path.name} is too large for a cover.")
    return path.read_bytes()
