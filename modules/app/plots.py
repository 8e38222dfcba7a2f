"""An X/Y/Z plot put together from the pictures of its cells; the task ``plot``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from modules.core.job import CANCELLED, FAILED, FINISHED, INTERRUPTED
from modules.core.plan import ModelRef
from modules.core.plot import Plot, entries
from modules.core.result import GRID, PICTURE, FinishedPicture, Outcome, Part, SavedImage, Watch
from modules.imaging import grids, sheets
from modules.imaging.sheets import Labels, Tile
from modules.library import infotext
from modules.library.images import read_picture

# What stands in a cell without a picture, by the state of its part.
WORDS = {FINISHED: "skipped", FAILED: "failed", CANCELLED: "cancelled", INTERRUPTED: "interrupted"}


@dataclass(frozen=True)
class Drawing:
    """One picture of a plot: its cells by sheet, row and column, and the axes that its infotext names."""

    labels: Labels
    cells: tuple[tuple[int, ...], ...]
    axes: str


def perform(plot: Plot, watch: Watch, done: frozenset[int]) -> Outcome:
    """Draw the whole plot, then each sub-grid that is wanted, but for those in ``done``; cells may be missing."""
    warnings = dict.fromkeys(_missing(plot))
    if not any(part.images for part in plot.parts):
        return Outcome(warnings=(*warnings, "No cell has a picture, so there is no grid."))
    watch.phase("Drawing the grid")
    for index, drawing in enumerate(drawings(plot)):
        if index in done:
            continue
        watch.check()
        watch.batch(index, 1)
        tiles = [tile([plot.parts[number] for number in numbers]) for numbers in drawing.cells]
        layout = sheets.lay_out(drawing.labels, tiles, plot.grid.margin_size)
        if layout.scale < 1:
            warnings[f"The grid is drawn at {layout.scale:.0%} of its size, to have no more than "
                     f"{sheets.MAX_PIXELS // 1024**2} megapixels."] = None
        watch.picture(_finished(index, sheets.draw(layout, tiles, watch.check), plot, drawing))
        watch.step(1, 1)
    return Outcome(warnings=tuple(warnings))


def drawings(plot: Plot) -> Iterator[Drawing]:
    """Return the plot as a whole, and its sub-grids where they are wanted and there are several."""
    x, y, z = ((labels if plot.grid.draw_legend else ("",) * len(labels))
               for labels in (plot.x_labels, plot.y_labels, plot.z_labels))
    yield Drawing(Labels(x, y, z), plot.cells, "XYZ")
    if plot.grid.include_sub_grids and len(z) > 1:
        count = len(x) * len(y)
        for number in range(len(z)):
            yield Drawing(Labels(x, y), plot.cells[number * count:(number + 1) * count], "XY")


def tile(parts: Sequence[Part]) -> Tile:
    """Return the cell of ``parts``: their picture, several side by side as in any grid, or why there is none."""
    images = [image for part in parts for image in part.images if image.kind == PICTURE]
    if not images:
        return Tile(word=next((WORDS.get(part.state, part.state) for part in parts), "missing"))
    rows = grids.row_count(len(images))
    columns = -(-len(images) // rows)
    size = columns * max(image.width for image in images), rows * max(image.height for image in images)
    return Tile(size, partial(_together, images, rows))


def _together(images: Sequence[SavedImage], rows: int) -> Image.Image:
    """Return the pictures as one; raises ``OSError`` where one cannot be read."""
    opened = [read_picture(image.path) for image in images]
    return opened[0] if len(opened) == 1 else grids.grid(opened, rows)


def _missing(plot: Plot) -> Iterator[str]:
    """Say how many cells are missing."""
    counts: dict[str, int] = {}
    for numbers in plot.cells:
        found = tile([plot.parts[number] for number in numbers])
        if found.open is None:
            counts[found.word] = counts.get(found.word, 0) + 1
    for word, count in counts.items():
        yield f"{count} of {len(plot.cells)} cells {'is' if count == 1 else 'are'} missing: {word}."


def _finished(index: int, image: Image.Image, plot: Plot, drawing: Drawing) -> FinishedPicture:
    """Return the drawing with the infotext of its first cell that has a picture, and the entries of the axes."""
    numbers = [number for cell in drawing.cells for number in cell]
    first = next((one for number in numbers for one in plot.parts[number].images),
                 next(one for part in plot.parts for one in part.images))
    about = infotext.parse(first.infotext)
    parameters = infotext.joined_sizes(about.parameters) | entries(plot, drawing.axes)
    return FinishedPicture(index, image, about.prompt, about.negative_prompt, first.seed, 0, ModelRef(""), parameters,
                           kind=GRID)
