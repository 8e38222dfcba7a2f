"""Checkpoint and VAE on top of every tab; both are settings, as in AUTOMATIC1111's quicksettings."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from modules.core.errors import DarkroomError
from modules.web.answers import failure_view
from modules.web.controls import Controls, markup
from modules.web.events import quietly
from modules.web.form import Field

NAMES = ("sd_model_checkpoint", "sd_vae")
FIELDS = (
    Field("sd_model_checkpoint", "Stable Diffusion checkpoint", "choice", "", "setting_sd_model_checkpoint"),
    Field("sd_vae", "SD VAE", "choice", "Automatic", "setting_sd_vae"),
)


def build() -> Controls:
    """Lay the pickers out; return them."""
    controls = Controls(FIELDS)
    with gr.Row(elem_id="quicksettings"):
        markup('<a class="wordmark" href="." aria-label="Darkroom"><i></i>Darkroom</a>', elem_id="wordmark")
        with gr.Row(elem_classes=["picker"]):
            controls.show("sd_model_checkpoint", scale=5, min_width=180, filterable=True)
            controls.tool("Look for new checkpoints", "refresh_sd_model_checkpoint", "refresh")
        with gr.Row(elem_classes=["picker"]):
            controls.show("sd_vae", scale=5, min_width=140)
            controls.tool("Look for new VAEs", "refresh_sd_vae", "refresh")
    return controls


def wire(controls: Controls, app: Any, page: Any) -> None:
    """Connect the pickers: lists and choices on load, a setting on change, new lists on refresh."""
    def show() -> Any:
        return list(lists(app).values())

    def refresh() -> Any:
        keep_checkpoint(app)
        app.refresh()
        return show()

    outputs = controls.outputs()
    told = gr.Textbox(visible="hidden", elem_id="quicksettings_answer")
    quietly(page.load, show, outputs=outputs)
    for button in controls.buttons.values():
        click = quietly(button.click, refresh, outputs=outputs)
        quietly(click.then, js="() => window.darkroom.refresh()")
    for name in NAMES:
        change = quietly(controls[name].input, _change(name, app), inputs=controls[name], outputs=told)
        quietly(change.then, inputs=told, js="answer => window.darkroom.answered(JSON.parse(answer))")


def lists(app: Any) -> dict[str, Any]:
    """Return updates of both pickers: what is on disk, and what is chosen."""
    settings = app.settings.get()
    checkpoints = [item.title for item in app.library.checkpoints()]
    vaes = ["Automatic", "None", *(item.name for item in app.library.vaes())]
    chosen = settings.sd_model_checkpoint or (checkpoints[0] if checkpoints else "")
    return {
        "sd_model_checkpoint": gr.update(choices=checkpoints, value=spelled(chosen, checkpoints)),
        "sd_vae": gr.update(choices=vaes, value=settings.sd_vae),
    }


def keep_checkpoint(app: Any) -> None:
    """Choose the checkpoint in use, the first where none was ever chosen, so that new files do not displace it."""
    checkpoints = app.library.checkpoints()
    if checkpoints and not app.settings.get().sd_model_checkpoint:
        app.settings.update({"sd_model_checkpoint": checkpoints[0].title})


def spelled(chosen: str, titles: list[str]) -> str:
    """Return the title of the list that names the same file: a title gains its hash once that is known."""
    name = chosen.split(" [")[0]
    return next((title for title in titles if title == chosen or title.split(" [")[0] == name), chosen)


def _change(name: str, app: Any) -> Any:
    def change(value: str | None) -> str:
        try:
            app.settings.update({name: value or ""})
        except DarkroomError as error:
            return json.dumps(failure_view(error))
        return "{}"
    return change
