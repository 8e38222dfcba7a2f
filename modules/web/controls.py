"""Gradio controls for the fields of a form, and their values by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gradio as gr

from modules.web.form import Field, Form


class Controls(Mapping[str, Any]):
    """The controls of one form by field name, filled as the tab lays them out.

    ``buttons`` are what acts, by element id; ``places`` what only shows, by a name of the tab's.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        self._fields = {field.name: field for field in form}
        self._shown: dict[str, Any] = {}
        self.buttons: dict[str, Any] = {}
        self.places: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self._shown[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)

    def show(self, name: str, **options: Any) -> Any:
        """Render the control of field ``name`` here; ``options`` go to the Gradio component."""
        self._shown[name] = component(self._fields[name], **options)
        return self._shown[name]

    def button(self, label: str, elem_id: str, **options: Any) -> None:
        """Render a button here; ``buttons`` has it by its element id."""
        self.buttons[elem_id] = gr.Button(label, elem_id=elem_id, **options)

    def tool(self, label: str, elem_id: str, icon: str, **options: Any) -> None:
        """Render a small square button; its label is for screen readers and the tooltip."""
        self.button(label, elem_id, elem_classes=["tool", f"icon-{icon}"], size="sm", min_width=36, scale=0,
                    **options)

    def inputs(self) -> set[Any]:
        """Return the set to give to an event whose function reads values by name."""
        return set(self._shown.values())

    def outputs(self) -> list[Any]:
        """Return the controls an event may set through ``updates``."""
        return list(self._shown.values())

    def values(self, data: Mapping[Any, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Return the values of an event's ``data`` by field name."""
        return {name: data[shown] for name, shown in self._shown.items() if shown in data}

    def updates(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        """Return what an event returns to set the given fields."""
        return {
            self._shown[name]: gr.update(value=shown_value(self._fields[name], value))
            for name, value in values.items() if name in self._shown
        }


def markup(html: str, elem_id: str = "") -> Any:
    """Render ``html`` here as it is: Gradio's rules for prose would win over the page's own styles."""
    return gr.HTML(html, elem_id=elem_id or None, apply_default_css=False)


@contextmanager
def gated(controls: Controls, gate: str, elem_id: str) -> Iterator[Any]:
    """A panel that is open while the checkbox ``gate`` in its head is on; gives the place beside the checkbox."""
    with gr.Column(elem_id=elem_id, elem_classes=["gated"]):
        with gr.Row(elem_classes=["gated-head"]):
            controls.show(gate, scale=0, min_width=120, container=False)
            place = markup("", elem_id=f"{elem_id}_finalres")
        with gr.Column(elem_classes=["gated-body"]):
            yield place


def shown_value(field: Field, value: Any) -> Any:
    """Return ``value`` as the control wants it: digits for a seed, a list for several choices."""
    if field.kind == "seed":
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def shown_choices(field: Field) -> list[tuple[str, Any]]:
    """Return the choices of ``field`` as Gradio wants them: labels and values, that for none in front."""
    labels = field.labels or tuple(map(str, field.choices))
    return [*([(field.empty, "")] if field.empty else []), *zip(labels, field.choices, strict=True)]


def component(field: Field, **options: Any) -> Any:
    """Render the Gradio component that ``field`` describes."""
    common: dict[str, Any] = {
        "label": field.label, "value": shown_value(field, field.default), "elem_id": field.elem_id or None,
        "info": field.help or None,
    } | options
    whole = isinstance(field.default, int)
    if field.kind == "slider":
        return gr.Slider(minimum=field.minimum, maximum=field.maximum, step=field.step or (1 if whole else 0.01),
                         **common)
    if field.kind == "number":
        return gr.Number(minimum=field.minimum, maximum=field.maximum, step=field.step or 1,
                         precision=0 if whole else None, **common)
    if field.kind == "checkbox":
        return gr.Checkbox(**common)
    if field.kind == "radio":
        return gr.Radio(choices=shown_choices(field), **common)
    if field.kind in ("choice", "choices"):
        several = field.kind == "choices"
        return gr.Dropdown(multiselect=several, allow_custom_value=not field.strict,
                           **{"choices": shown_choices(field)} | common)
    common = {"lines": field.lines, "max_lines": max(field.lines, 1), "placeholder": field.placeholder or None} | common
    return gr.Textbox(**common)
