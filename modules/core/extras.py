"""What the Extras tab asks for: pictures made larger, under A1111's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.request import MAX_PICTURES, check_ids, check_range
from modules.core.result import MAX_PIXELS

KIND = "extras"
NO_UPSCALER = "None"
SCALE_BY, SCALE_TO = range(2)
MIN_SCALE, MAX_SCALE = 0.05, 16.0
MAX_SIDE = 32_768


@dataclass(frozen=True)
class Source:
    """A stored picture by its id, the name of its file, and its infotext."""

    image: str
    name: str = ""
    infotext: str = ""


@dataclass(frozen=True)
class Extras:
    """Pictures to enlarge.

    ``resize_mode`` 0 makes each ``upscaling_resize`` times as large; 1 makes it cover ``upscaling_resize_w`` by
    ``upscaling_resize_h`` pixels, of which ``upscaling_crop`` keeps the middle. ``upscaler_2`` is mixed in by its
    visibility. The upscaler ``None`` leaves a picture as it is. Faces are restored by GFPGAN, then by CodeFormer, each
    mixed in by its visibility, after the upscaling or before it (``upscale_first``); a ``codeformer_weight`` of 0
    changes them most, 1 least. ``plugins`` maps a plugin's id to the values of its ``Params``.
    """

    sources: tuple[Source, ...] = ()
    resize_mode: int = SCALE_BY
    upscaling_resize: float = 4.0
    upscaling_resize_w: int = 512
    upscaling_resize_h: int = 512
    upscaling_crop: bool = True
    upscaler_1: str = NO_UPSCALER
    upscaler_2: str = NO_UPSCALER
    extras_upscaler_2_visibility: float = 0.0
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0
    codeformer_weight: float = 0.0
    upscale_first: bool = True
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def mixes(self) -> bool:
        """Whether the second upscaler takes part."""
        return self.upscaler_2 != NO_UPSCALER and self.extras_upscaler_2_visibility > 0

    @property
    def upscalers(self) -> tuple[str, ...]:
        """The names of the upscalers that take part, in order."""
        if self.upscaler_1 == NO_UPSCALER:
            return ()
        return (self.upscaler_1, self.upscaler_2) if self.mixes else (self.upscaler_1,)

    @property
    def restorers(self) -> Mapping[str, float]:
        """The visibility of each face restorer that takes part, by its name, in order."""
        visible = {"GFPGAN": self.gfpgan_visibility, "CodeFormer": self.codeformer_visibility}
        return {name: visibility for name, visibility in visible.items() if visibility > 0}


def source_of(extras: Extras, index: int) -> Source:
    """Return what the picture ``index`` was made from: those of one source are a number of sources apart."""
    return extras.sources[index % len(extras.sources)]


def check_extras(extras: Extras) -> Extras:
    """Return ``extras`` unchanged, or raise ``InvalidRequest`` with what is out of range."""
    if not 1 <= len(extras.sources) <= MAX_PICTURES:
        raise InvalidRequest("There is no picture to enlarge." if not extras.sources else
                             f"At most {MAX_PICTURES:,} pictures can be asked for at once.", "Choose a picture.")
    check_ids(source.image for source in extras.sources)
    check_range("resize_mode", extras.resize_mode, SCALE_BY, SCALE_TO)
    check_range("upscaling_resize", extras.upscaling_resize, MIN_SCALE, MAX_SCALE)
    check_range("upscaling_resize_w", extras.upscaling_resize_w, 1, MAX_SIDE)
    check_range("upscaling_resize_h", extras.upscaling_resize_h, 1, MAX_SIDE)
    for name in ("extras_upscaler_2_visibility", "gfpgan_visibility", "codeformer_visibility", "codeformer_weight"):
        check_range(name, getattr(extras, name), 0.0, 1.0)
    return extras


def target_size(extras: Extras, width: int, height: int) -> tuple[int, int]:
    """Return the size in pixels that a picture of ``width`` by ``height`` is enlarged to, before it is cropped.

    Raises ``InvalidRequest`` for one that is too large.
    """
    if extras.resize_mode == SCALE_BY:
        scale = extras.upscaling_resize
        size = round(width * scale), round(height * scale)
    else:
        scale = max(extras.upscaling_resize_w / width, extras.upscaling_resize_h / height)
        size = (max(extras.upscaling_resize_w, round(width * scale)),
                max(extras.upscaling_resize_h, round(height * scale))) if extras.upscaling_crop else (
                    round(width * scale), round(height * scale))
    size = max(1, size[0]), max(1, size[1])
    if max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS:
        raise InvalidRequest(f"{width}x{height} would become {size[0]}x{size[1]}, which is too large.",
                             f"Up to {MAX_PIXELS // 1024**2} megapixels and {MAX_SIDE:,} a side can be made.")
    return size


def crops(extras: Extras) -> bool:
    """Return whether what is beyond the size asked for is cut off."""
    return extras.resize_mode == SCALE_TO and extras.upscaling_crop


def entries(extras: Extras) -> dict[str, str]:
    """Return the infotext's entries that say what was done to a picture, as A1111 writes them."""
    faces = {f"{name} visibility": f"{round(visibility, 3):g}" for name, visibility in extras.restorers.items()}
    if extras.codeformer_visibility > 0:
        faces["CodeFormer weight"] = f"{round(extras.codeformer_weight, 3):g}"
    return (_upscaling_entries(extras) if extras.upscalers else {}) | faces


def _upscaling_entries(extras: Extras) -> dict[str, str]:
    wanted = f"{extras.upscaling_resize_w}x{extras.upscaling_resize_h}"
    size = {"Postprocess upscale by": f"{extras.upscaling_resize:g}"}
    if extras.resize_mode == SCALE_TO:
        size = {"Postprocess upscale to": wanted} | ({"Postprocess crop to": wanted} if crops(extras) else {})
    second = {"Postprocess upscaler 2": extras.upscaler_2,
              "Postprocess upscaler 2 visibility": f"{extras.extras_upscaler_2_visibility:g}"}
    return size | {"Postprocess upscaler": extras.upscaler_1} | (second if extras.mixes else {})
