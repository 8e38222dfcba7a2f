"""What the panel of the X/Y/Z plot holds, under AUTOMATIC1111's labels and element ids: no controls yet."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from modules.core import plot
from modules.core.axes import Axis, find_axis
from modules.core.errors import InvalidRequest
from modules.core.grid import MAX_MARGIN, NOTHING, TITLE, Grid, has_axis, join, split
from modules.core.request import Request
from modules.web.form import Field, Form, restored, with_choices

GATE, TEXTS = "plot_enable", "csv_mode"
AXES = "xyz"
TYPES = tuple(f"{axis}_type" for axis in AXES)
SWITCHES = {"draw_legend": "Draw legend", "no_fixed_seeds": "Keep -1 for seeds", "vary_seeds_x": "Vary seeds for X",
            "vary_seeds_y": "Vary seeds for Y", "vary_seeds_z": "Vary seeds for Z",
            "include_lone_images": "Include Sub Images", "include_sub_grids": "Include Sub Grids"}


def fields(tab: str) -> Form:
    """Return the fields of the panel; the values of an axis are a text, or choices where it has some."""
    prefix, none = f"script_{tab}_xyz_plot", Grid()
    axes = [field for axis in AXES for field in (
        Field(f"{axis}_type", f"{axis.upper()} type", "choice", NOTHING, f"{prefix}_{axis}_type"),
        Field(f"{axis}_values", f"{axis.upper()} values", "text", "", f"{prefix}_{axis}_values",
              placeholder="5, 7, 9 or 1-10 [5]"),
        Field(f"{axis}_choices", f"{axis.upper()} values", "choices", (), f"{prefix}_{axis}_values_dropdown"))]
    switches = (Field(name, label, "checkbox", getattr(none, name), f"{prefix}_{name}")
                for name, label in SWITCHES.items())
    return (Field(GATE, TITLE, "checkbox", False, f"{tab}_xyz_plot-checkbox"), *axes, *switches,
            Field(TEXTS, "Use text inputs instead of dropdowns", "checkbox", False, f"{prefix}_{TEXTS}"),
            Field("margin_size", "Grid margins (px)", "slider", 0, f"{prefix}_margin_size", "", 0, MAX_MARGIN, 2))


def with_axes(form: Form, axes: Sequence[Axis]) -> Form:
    """Return ``form`` in which each type may be any of ``axes``."""
    labels = (NOTHING, *(axis.label for axis in axes))
    return tuple(with_choices(field, labels) if field.name in TYPES else field for field in form)


def grid_of(form: Form, values: Mapping[str, Any], axes: Sequence[Axis]) -> Grid:
    """Return the grid that the values of the panel ask for, an empty one while it is closed."""
    if not values.get(GATE):
        return Grid()
    own = {field.name for field in dataclasses.fields(Grid)}
    shown = restored(form, values)
    texts = {f"{axis}_values": join(shown[f"{axis}_choices"]) for axis in AXES
             if offers(shown[f"{axis}_type"], axes) and not shown[TEXTS]}
    return Grid(**{**{name: shown[name] for name in own}, **texts})


def recalled(extras: Mapping[str, str], axes: Sequence[Axis]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values of the panel that the entries of an infotext name, and what to say of axes that are not here.

    An infotext of a picture that is no plot leaves the panel as it is.
    """
    if extras.get("Script") != TITLE:
        return {}, ()
    found: dict[str, Any] = {GATE: True}
    problems = []
    for axis in AXES:
        label, text = (extras.get(f"{axis.upper()} {name}", "") for name in ("Type", "Values"))
        try:
            known = find_axis(label, axes) if has_axis(label) else None
            chosen = split(text) if known and known.choices else ()
        except InvalidRequest as error:
            problems.append(error.message)
            known, text, chosen = None, "", ()
        found |= {f"{axis}_type": known.label if known else NOTHING, f"{axis}_values": text, f"{axis}_choices": chosen}
    return found, tuple(problems)


def summary(request: Request, axes: Sequence[Axis]) -> str:
    """Return how much work the grid of ``request`` is; raises ``InvalidRequest`` where a value is wrong."""
    if not request.grid.wanted:
        return "Choose what varies."
    lines = plot.lines(request.grid, axes, itertools.count().__next__)
    cells = plot.cells(request, lines)
    wide, high, grids = (len(line.values) for line in lines)
    pictures, steps = sum(cell.request.pictures for cell in cells), sum(plot.steps(cell.request) for cell in cells)
    shape = f"{grids} grids of {wide} x {high}" if grids > 1 else f"a grid of {wide} x {high}"
    return f"Will make {pictures:,} picture{'s'[:pictures > 1]} for {shape}, {steps:,} steps in all."


def offers(label: str, axes: Sequence[Axis]) -> bool:
    """Return whether there are choices for the axis called ``label``."""
    return any(axis.label == label and axis.choices for axis in axes)
