"""The X/Y/Z plot: a panel of the tabs that make pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from modules.core.axes import Axis, find_axis
from modules.core.errors import InvalidRequest
from modules.core.grid import NOTHING, join, split
from modules.web.controls import Controls, gated, markup
from modules.web.events import listen, quietly
from modules.web.form import read
from modules.web.plot_form import AXES, GATE, SWITCHES, TEXTS, fields, grid_of, offers, summary

# What else decides how much work a plot is.
COUNTED = ("steps", "batch_count", "batch_size", "enable_hr", "hr_second_pass_steps")


def build(controls: Controls, tab: str) -> None:
    """Lay the panel out."""
    with gated(controls, GATE, f"{tab}_xyz_plot"):
        for axis in AXES:
            with gr.Row(elem_classes=["plot-axis"]):
                # The long list comes with the stored form; in the page's description each would be there four times.
                controls.show(f"{axis}_type", scale=3, min_width=150, choices=[NOTHING])
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


def _adapted(shown: Sequence[Any], axes: Sequence[Axis], app: Any) -> list[Any]:
    """Return for each axis its text and its choices, of which one is shown, then the buttons that fill in all.

    ``shown`` are the types of the axes, then whether texts are wanted.
    """
    *labels, texts = shown
    updates: list[Any] = []
    for label in labels:
        chosen = not texts and offers(label, axes)
        listed = list(app.choices(find_axis(label, axes))) if chosen else []
        updates += [gr.update(visible=not chosen), gr.update(visible=chosen, choices=listed)]
    return [*updates, *(gr.update(visible=offers(label, axes)) for label in labels)]


def _converted(texts: bool, values: Sequence[Any]) -> list[Any]:
    """Return the values of all axes as texts, or as choices; those that have no others are as they were."""
    found: list[Any] = []
    for text, chosen in zip(values[::2], values[1::2], strict=True):
        found += [join(chosen) if texts and chosen else text, chosen if texts or not text else list(split(text))]
    return found


def _filled(label: str, values: tuple[Any, Any], axes: Sequence[Axis], app: Any) -> list[Any]:
    """Return all values of an axis as text and as choices; ``values`` where it has no list."""
    if not offers(label, axes):
        return list(values)
    listed = app.choices(find_axis(label, axes))
    return [join(listed), list(listed)]
