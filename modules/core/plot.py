"""From one request with a grid to the requests of its cells, and what is drawn of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modules.core.axes import Axis, find_axis, read_values, value_text
from modules.core.errors import InvalidRequest
from modules.core.grid import TITLE, Grid, has_axis, join
from modules.core.request import MAX_PICTURES, MAX_SEED, Request
from modules.core.result import GRID, Part, SavedImage

KIND = "plot"
# Of all prompts of all cells together.
MAX_CHARACTERS = 50_000_000


@dataclass(frozen=True)
class Line:
    """One axis of a grid with its values; without an ``axis`` it is a single place where nothing changes."""

    axis: Axis | None = None
    values: tuple[Any, ...] = (None,)

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands beside the grid at each value."""
        if self.axis is None:
            return ("",) * len(self.values)
        return tuple(self.axis.legend(self.axis.label, value_text(self.axis, value)) for value in self.values)

    @property
    def cost(self) -> float:
        """How long a change along this axis takes."""
        return self.axis.cost if self.axis else 0.0


@dataclass(frozen=True)
class Cell:
    """The request of one cell, and its place along X, Y and Z from 0."""

    place: tuple[int, int, int]
    request: Request


@dataclass(frozen=True)
class Plot:
    """What is drawn once the cells are made.

    ``cells`` lists the numbers of the job's parts from 0 whose pictures are in each cell: all of the first row, the
    second row, ..., then those of the next value of Z. ``fixed`` are the values of axes of random seeds, by axis.
    ``parts`` are what became of the parts of the job.
    """

    grid: Grid
    x_labels: tuple[str, ...] = ("",)
    y_labels: tuple[str, ...] = ("",)
    z_labels: tuple[str, ...] = ("",)
    cells: tuple[tuple[int, ...], ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def lines(grid: Grid, axes: Sequence[Axis], random_seed: Callable[[], int]) -> tuple[Line, Line, Line]:
    """Return the three axes of ``grid`` with their values, random seeds among them fixed if the grid wants that.

    Raises ``InvalidRequest`` for an unknown axis, a value that cannot be read, or too many cells.
    """
    x, y, z = (_line(label, text, axes) for label, text in grid.axes.values())
    count = len(x.values) * len(y.values) * len(z.values)
    if count > MAX_PICTURES:
        raise InvalidRequest(f"{TITLE}: {len(x.values):,} x {len(y.values):,} x {len(z.values):,} are {count:,} cells; "
                             f"at most {MAX_PICTURES:,} can be made.", "Give fewer values.")
    if grid.no_fixed_seeds:
        return x, y, z
    return _fixed(x, random_seed), _fixed(y, random_seed), _fixed(z, random_seed)


def cells(request: Request, places: tuple[Line, Line, Line]) -> tuple[Cell, ...]:
    """Return the cells of ``request`` in the order in which to make them: what costs most changes least often.

    A change of X comes first, then Y, then Z. Raises ``InvalidRequest`` where a value cannot be applied.
    """
    grid = request.grid
    plain = dataclasses.replace(request, grid=Grid(), save_grid=False)
    made = list(_few_characters(
        Cell((x, y, z), _varied(one, grid, places, (x, y, z)))
        for x, in_x in _changes(plain, places[0])
        for y, in_y in _changes(in_x, places[1])
        for z, one in _changes(in_y, places[2])))
    outermost = sorted((2, 1, 0), key=lambda axis: -places[axis].cost)
    return tuple(sorted(made, key=lambda cell: tuple(cell.place[axis] for axis in outermost)))


def plot_of(grid: Grid, places: tuple[Line, Line, Line], parts: Mapping[tuple[int, int, int], Iterable[int]]) -> Plot:
    """Return what is drawn: ``parts`` are the numbers of each cell's parts by its place."""
    x, y, z = places
    order = itertools.product(*(range(len(line.values)) for line in (z, y, x)))
    fixed = {name: join(line.values) for name, line in zip("XYZ", places, strict=True)
             if line.axis and line.axis.kind == "seed" and not grid.no_fixed_seeds}
    return Plot(grid, x.labels, y.labels, z.labels, tuple(tuple(parts[ix, iy, iz]) for iz, iy, ix in order), fixed)


def entries(plot: Plot, names: Iterable[str] = "XYZ") -> dict[str, str]:
    """Return the infotext entries from which a form can be filled again, as A1111 writes them."""
    found = {"Script": TITLE}
    axes = plot.grid.axes
    for name in names:
        label, values = axes[name]
        if has_axis(label):
            found |= {f"{name} Type": label, f"{name} Values": values}
        if name in plot.fixed:
            found[f"Fixed {name} Values"] = plot.fixed[name]
    return found


def shown(images: Sequence[SavedImage], grid: Grid, with_grid: bool) -> tuple[int, ...]:
    """Return the numbers of the images to show, in order: grids first, those that are no plot only ``with_grid``.

    Once a plot is drawn its cells are left out, unless it includes them.
    """
    grids = tuple(number for number, image in enumerate(images) if image.kind == GRID)
    pictures = tuple(number for number, image in enumerate(images) if image.kind != GRID)
    if grid.wanted and grids:
        return (*grids, *(pictures if grid.include_lone_images else ()))
    return (*(grids if with_grid else ()), *pictures)


def steps(request: Request) -> int:
    """Return how many sampling steps the pictures of ``request`` take, those of hires fix included."""
    hires = (request.hr_second_pass_steps or request.steps) if request.enable_hr else 0
    return (request.steps + hires) * request.batch_count


def _few_characters(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Yield ``cells`` as long as their prompts fit into memory together; raises ``InvalidRequest``."""
    characters = 0
    for cell in cells:
        request = cell.request
        characters += sum(map(len, (request.prompt, request.negative_prompt, request.hr_prompt,
                                    request.hr_negative_prompt)))
        if characters > MAX_CHARACTERS:
            raise InvalidRequest(f"{TITLE}: the prompts of all cells have more than {MAX_CHARACTERS:,} characters.",
                                 "Give fewer values, or shorter prompts.")
        yield cell


def _line(label: str, text: str, axes: Sequence[Axis]) -> Line:
    if not has_axis(label):
        return Line()
    axis = find_axis(label, axes)
    return Line(axis, read_values(axis, text))


def _fixed(line: Line, random_seed: Callable[[], int]) -> Line:
    if line.axis is None or line.axis.kind != "seed":
        return line
    return dataclasses.replace(line, values=tuple(random_seed() if value == -1 else value for value in line.values))


def _changes(request: Request, line: Line) -> Iterable[tuple[int, Request]]:
    axis = line.axis
    if axis is None:
        return [(0, request)]
    return ((place, axis.change(request, value)) for place, value in enumerate(line.values))


def _varied(request: Request, grid: Grid, places: tuple[Line, Line, Line], place: tuple[int, int, int]) -> Request:
    """Return ``request`` with its seed counted up along the axes that ask for it, X fastest."""
    wanted = (grid.vary_seeds_x, grid.vary_seeds_y, grid.vary_seeds_z)
    by, stride = 0, 1
    for line, at, varies in zip(places, place, wanted, strict=True):
        if varies:
            by += at * stride
            stride *= len(line.values)
    if not by or request.seed == -1:
        return request
    return dataclasses.replace(request, seed=min(MAX_SEED, request.seed + by))
