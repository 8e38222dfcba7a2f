"""The X/Y/Z plot: a panel of the tabs that make pictures, under AUTOMATIC1111's labels and element ids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from modules.core import plot
from modules.core.axes import Axis, find_axis
from modules.core.errors import InvalidRequest
from modules.core.grid import MAX_MARGIN, NOTHING, TITLE, Grid, has_axis, join, split
from modules.core.request import Request
from modules.web.controls import Controls, gated, markup
from modules.web.events import listen, quietly
from modules.web.form import Field, Form, read, restored, with_choices

GATE, TEXTS = "plot_enable", "csv_mode"
AXES = "xyz"
SWITCHES = {"draw_legend": "Draw legend", "no_fixed_seeds": "Keep -1 for seeds", "vary_seeds_x": "Vary seeds for X",
            "vary_seeds_y": "Vary seeds for Y", "vary_seeds_z": "Vary seeds for Z",
            "include_lone_images": "Include Sub Images", "include_sub_grids": "Include Sub Grids"}
# What else decides how much work a plot is.
COUNTED = ("steps", "batch_count", "batch_size", "enable_hr", "hr_second_pass_steps")


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
    labels, types = (NOTHING, *(axis.label for axis in axes)), {f"{axis}_type" for axis in AXES}
    return tuple(with_choices(field, labels) if field.name in types else field for field in form)


def grid_of(form: Form, values: Mapping[str, Any], axes: Sequence[Axis]) -> Grid:
    """Return the grid that the values of the panel ask for, an empty one while it is closed."""
    if not values.get(GATE):
        return Grid()
    own = {field.name for field in dataclasses.fields(Grid)}
    shown = restored(form, values)
    texts = {f"{axis}_values": join(shown[f"{axis}_choices"]) for axis in AXES
             if _offers(shown[f"{axis}_type"], axes) and not shown[TEXTS]}
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


def build(controls: Controls, tab: str) -> None:
    """Lay the panel out."""
    with gated(controls, GATE, f"{tab}_xyz_plot"):
        for axis in AXES:
            with gr.Row(elem_classes=["plot-axis"]):
                controls.show(f"{axis}_type", scale=3, min_width=150)
                controls.show(f"{axis}_values", scale=5, min_width=150)
                controls.show(f"{axis}_choices", scale=5, min_width=150, visible=False)
                controls.tool(f"Fill in all values of {axis.upper()}", f"{tab}_plot_fill_{axis}", "list", visible=False)
        controls.places["plot"] = markup("", elem_id=f"{tab}_xyz_plot_summary")
        with gr.Row(elem_classes=["plot-switches"]):
            for name in (*SWITCHES, TEXTS):
                controls.show(name, container=False, min_width=150)
        controls.show("margin_size")
        with gr.Row():
            for one, other in ("xy", "yz", "xz"):
                controls.button(f"Swap {one.upper()}/{other.upper()} axes", f"{tab}_plot_swap_{one}{other}",
                                size="sm", min_width=110)


def wire(controls: Controls, tab: str, app: Any, store: Any) -> None:
    """Connect the panel: values are chosen where there are choices, and a line says how much work they make."""
    types = [controls[f"{axis}_type"] for axis in AXES]
    listen([one.change for one in [*types, controls[TEXTS]]], lambda *shown: _adapted(shown, app.axes(tab), app),
           inputs=[*types, controls[TEXTS]], trigger_mode="always_last",
           outputs=[*_values_of(controls), *(controls.buttons[f"{tab}_plot_fill_{axis}"] for axis in AXES)])
    converted = quietly(controls[TEXTS].input, lambda texts, *values: _converted(texts, values),
                        inputs=[controls[TEXTS], *_values_of(controls)], outputs=_values_of(controls))
    quietly(converted.then, store, inputs=controls.inputs())
    for axis in AXES:
        own = [controls[f"{axis}_{name}"] for name in ("values", "choices")]
        filled = quietly(controls.buttons[f"{tab}_plot_fill_{axis}"].click,
                         lambda label, text, chosen: _filled(label, (text, chosen), app.axes(tab), app),
                         inputs=[controls[f"{axis}_type"], *own], outputs=own)
        quietly(filled.then, store, inputs=controls.inputs())
    for one, other in ("xy", "yz", "xz"):
        both = [controls[f"{axis}_{name}"] for axis in (one, other) for name in ("type", "values", "choices")]
        swapped = quietly(controls.buttons[f"{tab}_plot_swap_{one}{other}"].click, inputs=both, outputs=both,
                          js="(a, b, c, d, e, f) => [d, e, f, a, b, c]")
        quietly(swapped.then, store, inputs=controls.inputs())
    _wire_summary(controls, tab, app)


def _wire_summary(controls: Controls, tab: str, app: Any) -> None:
    def show(data: Mapping[Any, Any]) -> str:
        values = controls.values(data)
        if not values.get(GATE):
            return ""
        axes = app.axes(tab)
        try:
            asked = read(controls.form, values, app.settings.get())
            grid = grid_of(controls.form, values, axes)
            return summary(dataclasses.replace(asked, kind=tab, grid=grid), axes)
        except InvalidRequest as error:
            return f"<b>{escape(error.message)}</b>"

    own = [field.name for field in fields(tab)]
    changes = [controls[name].change for name in (*own, *COUNTED) if name in controls]
    listen([*changes, controls["prompt"].blur, controls["negative_prompt"].blur], show, inputs=controls.inputs(),
           outputs=controls.places["plot"], trigger_mode="always_last")


def _values_of(controls: Controls) -> list[Any]:
    return [controls[f"{axis}_{name}"] for axis in AXES for name in ("values", "choices")]


def _offers(label: str, axes: Sequence[Axis]) -> bool:
    """Return whether there are choices for the axis called ``label``."""
    return any(axis.label == label and axis.choices for axis in axes)


def _adapted(shown: Sequence[Any], axes: Sequence[Axis], app: Any) -> list[Any]:
    """Return for each axis its text and its choices, of which one is shown, then the buttons that fill in all.

    ``shown`` are the types of the axes, then whether texts are wanted.
    """
    *labels, texts = shown
    updates: list[Any] = []
    for label in labels:
        chosen = not texts and _offers(label, axes)
        listed = list(app.choices(find_axis(label, axes))) if chosen else []
        updates += [gr.update(visible=not chosen), gr.update(visible=chosen, choices=listed)]
    return [*updates, *(gr.update(visible=_offers(label, axes)) for label in labels)]


def _converted(texts: bool, values: Sequence[Any]) -> list[Any]:
    """Return the values of all axes as texts, or as choices; those that have no others are as they were."""
    found: list[Any] = []
    for text, chosen in zip(values[::2], values[1::2], strict=True):
        found += [join(chosen) if texts and chosen else text, chosen if texts or not text else list(split(text))]
    return found


def _filled(label: str, values: tuple[Any, Any], axes: Sequence[Axis], app: Any) -> list[Any]:
    """Return all values of an axis as text and as choices; ``values`` where it has no list."""
    if not _offers(label, axes):
        return list(values)
    listed = app.choices(find_axis(label, axes))
    return [join(listed), list(listed)]
