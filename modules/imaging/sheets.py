"""Pictures in rows and columns with a legend: what an X/Y/Z plot is drawn as."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from modules.imaging.grids import BACKGROUND
from modules.imaging.lettering import font, wrapped

# 192 MiB in memory. What would be larger is drawn smaller.
MAX_PIXELS = 64 * 1024 * 1024
MAX_SIDE = 65_500
MIN_LETTERS = 12
INK, BLANK, PALE = "#000000", "#e6e6e6", "#767676"


@dataclass(frozen=True)
class Tile:
    """One cell: ``open`` returns its picture, whose ``size`` (width, height) is known before; or a ``word`` says why
    there is none."""

    size: tuple[int, int] = (0, 0)
    open: Callable[[], Image.Image] | None = None
    word: str = ""


@dataclass(frozen=True)
class Labels:
    """What stands above the columns, left of the rows, and above each sheet; empty texts take no room."""

    columns: tuple[str, ...] = ("",)
    rows: tuple[str, ...] = ("",)
    sheets: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Layout:
    """Where everything is, in pixels; ``scale`` is how much smaller the cells are drawn than the pictures are.

    ``left`` is the width of the rows' labels, ``top`` the height of the columns', ``title`` that of a sheet's.
    ``letters`` is the height of the letters.
    """

    labels: Labels
    cell: tuple[int, int]
    margin: int
    scale: float
    letters: int
    left: int
    top: int
    title: int

    @property
    def sheet_width(self) -> int:
        """The width of one sheet."""
        return self.left + _spread(len(self.labels.columns), self.cell[0], self.margin)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture."""
        height = self.title + self.top + _spread(len(self.labels.rows), self.cell[1], self.margin)
        return _spread(len(self.labels.sheets), self.sheet_width, self.margin), height

    def sheet_at(self, sheet: int) -> int:
        """Return where a sheet begins from the left."""
        return sheet * (self.sheet_width + self.margin)

    def cell_at(self, column: int, row: int, sheet: int) -> tuple[int, int]:
        """Return the upper left corner of a cell."""
        return (self.sheet_at(sheet) + self.left + column * (self.cell[0] + self.margin),
                self.title + self.top + row * (self.cell[1] + self.margin))


def lay_out(labels: Labels, tiles: Sequence[Tile], margin: int = 0, limit: int = MAX_PIXELS) -> Layout:
    """Return the layout of ``tiles`` (by sheet, row, column), each cell as large as the largest picture.

    Where the whole exceeds ``limit`` pixels or 65,500 on a side, cells and margins are smaller.
    """
    width, height = (max(1, max(sides)) for sides in zip(*(tile.size for tile in tiles), strict=True))
    scale = 1.0
    while True:
        cell = max(1, round(width * scale)), max(1, round(height * scale))
        layout = _layout(labels, cell, round(margin * scale), scale)
        wide, high = layout.size
        if (wide * high <= limit and max(wide, high) <= MAX_SIDE) or cell == (1, 1):
            return layout
        # Letters do not shrink below a size that can be read, so one step may not suffice.
        scale *= min(0.95, math.sqrt(limit / (wide * high)), MAX_SIDE / max(wide, high))


def draw(layout: Layout, tiles: Sequence[Tile], check: Callable[[], None] = lambda: None) -> Image.Image:
    """Return the picture of ``tiles``; each is open only while it is drawn. ``check`` is called before each."""
    labels = layout.labels
    result = Image.new("RGB", layout.size, BACKGROUND)
    ink = ImageDraw.Draw(result)
    letters = font((*labels.columns, *labels.rows, *labels.sheets), layout.letters)
    for index, tile in enumerate(tiles):
        check()
        rest, column = divmod(index, len(labels.columns))
        sheet, row = divmod(rest, len(labels.rows))
        _draw_tile(result, ink, tile, (layout.cell_at(column, row, sheet), layout.cell), letters)
    for sheet, title in enumerate(labels.sheets):
        at = layout.sheet_at(sheet)
        _write(ink, title, letters, (at + layout.left, 0, layout.sheet_width - layout.left, layout.title))
        for column, text in enumerate(labels.columns):
            x = layout.cell_at(column, 0, sheet)[0]
            _write(ink, text, letters, (x, layout.title, layout.cell[0], layout.top))
        for row, text in enumerate(labels.rows):
            y = layout.cell_at(0, row, sheet)[1]
            _write(ink, text, letters, (at, y, layout.left, layout.cell[1]))
    return result


def _layout(labels: Labels, cell: tuple[int, int], margin: int, scale: float) -> Layout:
    size = max(MIN_LETTERS, sum(cell) // 25)
    letters = font((*labels.columns, *labels.rows, *labels.sheets), size)
    longest = max(letters.getlength(text[:100]) for text in labels.rows)
    left = min(math.ceil(longest) + 2 * size, max(cell[0] * 3 // 4, 6 * size)) if any(labels.rows) else 0
    top = _height(labels.columns, letters, cell[0], cell[1])
    layout = Layout(labels, cell, margin, scale, size, left, top, 0)
    title = _height(labels.sheets, letters, layout.sheet_width - left, cell[1])
    return Layout(labels, cell, margin, scale, size, left, top, title)


def _height(texts: Sequence[str], letters: Any, width: int, most: int) -> int:
    """Return the height of a row of labels of that ``width``, not much more than ``most``; 0 where all are empty."""
    lines = max(len(wrapped(text, letters, _inner(width, letters), _most_lines(letters, most))) for text in texts)
    return (lines + 1) * _line(letters) if lines else 0


def _write(ink: Any, text: str, letters: Any, box: tuple[int, int, int, int], colour: str = INK) -> None:
    """Write ``text`` in the middle of ``box`` (left, top, width, height)."""
    left, top, width, height = box
    lines = wrapped(text, letters, _inner(width, letters), _most_lines(letters, height))
    y = top + (height - len(lines) * _line(letters)) / 2
    for number, line in enumerate(lines):
        ink.text((left + width / 2, y + (number + 0.5) * _line(letters)), line, colour, letters, anchor="mm")


def _draw_tile(result: Image.Image, ink: Any, tile: Tile, box: tuple[tuple[int, int], tuple[int, int]],
               letters: Any) -> None:
    (x, y), (width, height) = box
    try:
        picture = tile.open() if tile.open else None
    except OSError:
        picture, tile = None, Tile(word="missing")
    if picture is None:
        ink.rectangle((x, y, x + width - 1, y + height - 1), BLANK)
        _write(ink, tile.word, letters, (x, y, width, height), PALE)
        return
    share = min(1.0, width / picture.width, height / picture.height)
    if share < 1.0:
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    place = x + (width - picture.width) // 2, y + (height - picture.height) // 2
    result.paste(picture, place, picture if picture.mode == "RGBA" else None)


def _spread(count: int, size: int, margin: int) -> int:
    return count * size + (count - 1) * margin


def _line(letters: Any) -> int:
    return int(letters.size * 5 // 4)


def _inner(width: int, letters: Any) -> int:
    return max(1, int(width - letters.size // 2))


def _most_lines(letters: Any, height: int) -> int:
    return max(3, height // _line(letters) - 1)
