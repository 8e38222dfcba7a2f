"""The row of styles under the prompts' buttons: choose some, write them into the prompts, open their editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from modules.app.admission import apply_styles
from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.web.controls import Controls
from modules.web.events import quietly

PROMPTS = ("prompt", "negative_prompt")


def build(controls: Controls, tab: str) -> None:
    """Lay the row out; the page's scripts open the editor."""
    with gr.Row(elem_id=f"{tab}_styles_row"):
        controls.show("styles", min_width=120, scale=4)
        controls.tool("Apply chosen styles to the prompts", f"{tab}_style_apply", "apply")
        controls.tool("Edit styles", f"{tab}_styles_edit_button", "pencil")


def wire(controls: Controls, app: Any, tab: str, store: Callable[..., None]) -> None:
    """Connect the button that writes the chosen styles into the prompts; the form is then stored."""
    names = (*PROMPTS, "styles")

    def write(data: dict[Any, Any]) -> Any:
        return controls.updates(applied(controls.values(data), app))

    click = quietly(controls.buttons[f"{tab}_style_apply"].click, write, inputs={controls[name] for name in names},
                    outputs=[controls[name] for name in names])
    quietly(click.then, store, inputs=controls.inputs())


def applied(values: dict[str, Any], app: Any) -> dict[str, Any]:
    """Return the prompts with the chosen styles in them and no style chosen; as it was where they grow too long."""
    asked = Request(prompt=values["prompt"] or "", negative_prompt=values["negative_prompt"] or "",
                    styles=tuple(values["styles"] or ()))
    try:
        request, _ = apply_styles(asked, app.folders.styles)
    except InvalidRequest:
        request = asked
    return {name: getattr(request, name) for name in (*PROMPTS, "styles")}
