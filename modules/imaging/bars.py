"""Numbers by name as a picture: horizontal bars, coloured from cool to hot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image, ImageDraw

from modules.imaging.lettering import font, wrapped

WIDTH, ROW, MARGIN, TITLE = 960, 24, 24, 64
LABEL, VALUE = 64, 92
TEXT, HEADING = 14, 17
# Of a bar from nothing to the longest: the safelight's colours.
HEAT = ((0.0, (92, 122, 148)), (0.35, (240, 162, 60)), (1.0, (221, 79, 51)))


@dataclass(frozen=True)
class Colours:
    """What a picture is drawn with: the ``paper``, the ``ink`` of words, and the ``track`` that bars run on."""

    paper: str
    ink: str
    soft: str
    track: str


THEMES: Mapping[str, Colours] = MappingProxyType({
    "dark": Colours("#1b1816", "#ece6e1", "#a99e96", "#2e2926"),
    "light": Colours("#ffffff", "#231f1c", "#655c55", "#eee8e3"),
})


def bars(title: str, note: str, values: Sequence[tuple[str, float | None]], colours: Colours) -> Image.Image:
    """Return a picture with one bar for each of ``values``, in percent; None is drawn as a dash.

    Values are shares, 0 or larger; the longest bar is the largest value, rounded up to a number that is easily read.
    """
    top = scale(max((value for _, value in values if value is not None), default=0.0))
    image = Image.new("RGB", (WIDTH, TITLE + ROW * len(values) + MARGIN), colours.paper)
    draw = ImageDraw.Draw(image)
    heading, letters = font([title], HEADING), font([note, *(name for name, _ in values)], TEXT)
    for y, text, colour, own in ((12, title, colours.ink, heading), (36, note, colours.soft, letters)):
        for line in wrapped(text, own, WIDTH - 2 * MARGIN, 1):
            draw.text((MARGIN, y), line, colour, own)
    left, right = MARGIN + LABEL, WIDTH - MARGIN - VALUE
    for index, (name, value) in enumerate(values):
        middle = TITLE + ROW * index + ROW // 2
        box = (left, middle - 7, right, middle + 7)
        draw.text((MARGIN, middle), name, colours.soft, letters, anchor="lm")
        draw.rounded_rectangle(box, 3, colours.track)
        draw.text((WIDTH - MARGIN, middle), percent(value), colours.ink, letters, anchor="rm")
        if value:
            share = value / top
            end = max(left + 4, left + round((right - left) * share))
            draw.rounded_rectangle((*box[:2], end, box[3]), 3, heat(share))
    return image


def scale(largest: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below ``largest``; 1 for nothing."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= largest * (1 - 1e-9))


def heat(share: float) -> tuple[int, int, int]:
    """Return the colour of a ``share`` from 0 to 1 of the longest bar."""
    for (low, cool), (high, hot) in zip(HEAT, HEAT[1:], strict=False):
        if share <= high:
            part = (share - low) / (high - low)
            red, green, blue = (round(x + (y - x) * part) for x, y in zip(cool, hot, strict=True))
            return red, green, blue
    return HEAT[-1][1]


def percent(value: float | None) -> str:
    """Return a share in percent with three digits that count; a dash for none."""
    return "-" if value is None else "0 %" if value == 0 else f"{value * 100:.3g} %"
