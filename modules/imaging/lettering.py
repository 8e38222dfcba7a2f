"""Text in pictures: a font that has the letters, and lines that fit."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

from PIL import ImageFont

# Fonts of the common systems for what the built-in one, which knows ASCII alone, does not have.
SYSTEM_FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial.ttf", "Arial Unicode.ttf",
                "NotoSansCJK-Regular.ttc", "PingFang.ttc", "YuGothR.ttc", "msyh.ttc", "malgun.ttf")
MOST_CHARACTERS = 200
_ABSENT = "\uffff"


def font(texts: Iterable[str], size: int) -> Any:
    """Return a font of ``size`` pixels that has all letters of ``texts``, as far as one is installed."""
    letters = {letter for text in texts for letter in text if not letter.isspace()}
    built_in = ImageFont.load_default(size)
    if all(letter.isascii() for letter in letters):
        return built_in
    found = [font for name in SYSTEM_FONTS if (font := _installed(name, size)) is not None]
    return max((*found, built_in), key=lambda font: sum(_has(font, letter) for letter in letters))


def wrapped(text: str, font: Any, width: int, most: int) -> tuple[str, ...]:
    """Return ``text`` in at most ``most`` lines of at most ``width`` pixels; what does not fit is left out: ``...``.

    Lines end between words, or inside one that is wider than a line.
    """
    lines: list[str] = []
    for word in _words(text[:MOST_CHARACTERS], font, width):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        elif len(lines) <= most:
            lines.append(word)
        else:
            break
    if len(lines) > most or len(text) > MOST_CHARACTERS:
        lines = [*lines[:most - 1], _cut(lines[:most][-1], font, width)] if lines else []
    return tuple(lines)


def _cut(line: str, font: Any, width: int) -> str:
    """Return ``line`` shortened until it and its ellipsis fit; the ellipsis alone where nothing else does."""
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1].rstrip()
    return f"{line.rstrip('.')}..."


def _words(text: str, font: Any, width: int) -> Iterable[str]:
    for word in text.split():
        while len(word) > 1 and font.getlength(word) > width:
            fits = bisect.bisect_right(range(1, len(word)), width, key=lambda end: font.getlength(word[:end]))
            yield word[:max(1, fits)]
            word = word[max(1, fits):]
        yield word


def _installed(name: str, size: int) -> Any:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _has(font: Any, letter: str) -> bool:
    return bytes(font.getmask(letter)) != bytes(font.getmask(_ABSENT))
