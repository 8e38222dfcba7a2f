"""What A1111's Extras tab does after enlarging: splitting, cropping to what matters, turning, flipped copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modules.plugin import InvalidRequest, Plugin, param

TURNS = ("0", "90", "180", "270")
MAX_PARTS, MAX_PIXELS = 100, 160_000_000
FLIPS = ("Off", "Horizontal", "Vertical", "Both")


@dataclass(frozen=True)
class Options:
    """What the panel shows, in the order in which it is done."""

    rotate: str = param("0", "Rotate", infotext="Postprocess rotate", choices=TURNS, help="Degrees, clockwise.")
    split: bool = param(False, "Split oversized images", infotext="Postprocess split oversized")
    split_threshold: float = param(
        0.5, "Threshold", minimum=0.0, maximum=1.0, step=0.05,
        help="Pictures are split where width and height below fill a smaller share of them than this.")
    overlap_ratio: float = param(0.2, "Overlap ratio", minimum=0.0, maximum=0.9, step=0.05)
    focal_crop: bool = param(False, "Auto focal point crop", infotext="Postprocess focal crop",
                             help="Keeps the part with the most detail.")
    width: int = param(512, "Width of parts", minimum=64, maximum=8192, step=8)
    height: int = param(512, "Height of parts", minimum=64, maximum=8192, step=8)
    flip: str = param("Off", "Create flipped copies", infotext="Postprocess flipped copies", choices=FLIPS)


class PostProcessing(Plugin):
    """Changes the Extras tab's pictures after they were enlarged."""

    id = "post_processing"
    name = "Split, crop, rotate, flip"
    description = "Splits oversized pictures, crops to what matters, rotates and adds flipped copies in the tab Extras."
    version = "1.0"
    Params = Options
    panels = ("extras",)
    sixteen_bits = True

    def postprocess(self, image: Any, params: Options) -> Sequence[Any] | None:
        """Return what one picture becomes."""
        if params.rotate == "0" and params.flip == "Off" and not (params.split or params.focal_crop):
            return None
        images = [rotated(image, int(params.rotate))]
        size = params.width, params.height
        if params.split:
            images = [part for one in images for part in split(one, size, params.split_threshold, params.overlap_ratio)]
        if params.focal_crop:
            images = [focused(one, size) for one in images]
        return [copy for one in images for copy in copies(one, params.flip)]


def rotated(image: Any, degrees: int) -> Any:
    """Return a picture turned clockwise by a multiple of 90 degrees."""
    turn = {90: "ROTATE_270", 180: "ROTATE_180", 270: "ROTATE_90"}.get(degrees)
    return image.transpose(_transpose(turn)) if turn else image


def copies(image: Any, flip: str) -> list[Any]:
    """Return a picture and its mirrored copies: left for right, upside down."""
    wanted = {"Horizontal": ["FLIP_LEFT_RIGHT"], "Vertical": ["FLIP_TOP_BOTTOM"],
              "Both": ["FLIP_LEFT_RIGHT", "FLIP_TOP_BOTTOM"]}.get(flip, [])
    return [image, *(image.transpose(_transpose(kind)) for kind in wanted)]


def split(image: Any, size: tuple[int, int], threshold: float, overlap: float) -> list[Any]:
    """Return overlapping parts of ``size`` along the longer side, the shorter one filled; as A1111 splits.

    Itself alone where one part would hold more than ``threshold`` of the picture.
    """
    width, height = size
    upright = image.height > image.width
    share = image.width * height / (image.height * width)
    share = share if upright else 1 / share
    if share >= 1.0 or share > threshold:
        return [image]
    if upright:
        whole = width, image.height * width // image.width
        length, part = whole[1], height
    else:
        whole = image.width * height // image.height, height
        length, part = whole[0], width
    count = math.ceil((length - part * overlap) / (part * (1 - overlap)))
    if count > MAX_PARTS or whole[0] * whole[1] > MAX_PIXELS:
        raise InvalidRequest(
            f"A picture of {image.width}x{image.height} would be split into {count:,} parts of {width}x{height}.",
            f"{MAX_PARTS} parts and {MAX_PIXELS // 10**6} megapixels are the most.")
    image = image.resize(whole, _lanczos())
    starts = [int((length - part) / max(1, count - 1) * i) for i in range(count)]
    return [image.crop((0, at, width, at + part) if upright else (at, 0, at + part, height)) for at in starts]


def focused(image: Any, size: tuple[int, int]) -> Any:
    """Return a picture so small that it just covers ``size``, cut to it where there is the most detail."""
    import numpy as np

    width, height = size
    scale = max(width / image.width, height / image.height)
    if scale <= 1.0:
        image = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))),
                             _lanczos())
        scale = 1.0
    # What is to be enlarged is cut first: of a narrow picture only a little remains.
    across, down = max(1, round(width / scale)), max(1, round(height / scale))
    grey = np.asarray(image.convert("L"), np.float32)
    detail = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    left, top = _richest(detail.sum(0), across), _richest(detail.sum(1), down)
    return image.resize(size, _lanczos(), (left, top, left + across, top + down))


def _richest(detail: Any, length: int) -> int:
    """Return where ``length`` neighbours hold the most; of several such places the one nearest to the middle."""
    import numpy as np

    sums = np.concatenate([[0.0], np.cumsum(detail, dtype=np.float64)])
    held = sums[length:] - sums[:-length]
    best = np.flatnonzero(held >= held.max() - 1e-6)
    return int(min(best, key=lambda at: abs(at - (len(held) - 1) / 2)))


def _transpose(name: str | None) -> Any:
    from PIL import Image

    return getattr(Image.Transpose, name or "")


def _lanczos() -> Any:
    from PIL import Image

    return Image.Resampling.LANCZOS
