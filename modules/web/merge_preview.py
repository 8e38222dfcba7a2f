"""The preview of a merge, in the Checkpoint Merger tab: pictures of what would be saved, one or a grid over its ratios.

A picture is asked for as txt2img's form stands, hires fix left out; the prompt and the seed may be others here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import gradio as gr

from modules.core.axes import MULTIPLIER
from modules.core.grid import Grid
from modules.core.job import Job
from modules.core.merge import Recipe
from modules.core.request import MAX_SEED, Request
from modules.web import work_form
from modules.web.answers import owner_of
from modules.web.controls import Controls, markup
from modules.web.events import quietly, restoring
from modules.web.form import Field, Form, read, restored, to_storage, value_of
from modules.web.generation import queued
from modules.web.tabs import txt2img

ID = "merge_preview"
ORIGIN = "merge preview"
FIELDS: Form = (
    Field("prompt", "Prompt", "text", "", f"{ID}_prompt", lines=2, placeholder="As in txt2img"),
    Field("seed", "Seed", "seed", 1, f"{ID}_seed", minimum=-1, maximum=MAX_SEED),
    Field("ratios", "Ratios of the grid", "text", "0-1 (+0.25)", f"{ID}_ratios"),
)
ONE, MANY = f"{ID}_one", f"{ID}_grid"


def build(controls: Controls) -> None:
    """Lay the section out; ``controls`` of the tab have its own among their places."""
    own = controls.places[ID] = Controls(FIELDS)
    with gr.Accordion("Preview of the merge", open=True, elem_id=ID):
        own.show("prompt")
        with gr.Row():
            own.show("seed", min_width=100)
            own.show("ratios", min_width=140)
        with gr.Row():
            own.button("Preview", ONE)
            own.button("Grid over ratios", MANY)
        markup("<darkroom-merge-preview></darkroom-merge-preview>")


def wire(controls: Controls, app: Any, recipe: Callable[[Mapping[str, Any]], Recipe], opened: list[Any],
         tab: str) -> None:
    """Connect the buttons; ``recipe`` reads the form of the ``tab``, which is shown at the events ``opened``."""
    own: Controls = controls.places[ID]

    def keep(data: dict[Any, Any], request: gr.Request) -> None:
        app.forms.save(owner_of(request.request), ID, to_storage(own.values(data)))

    def show(request: gr.Request) -> Any:
        return own.updates(restored(FIELDS, app.forms.load(owner_of(request.request), ID)))

    restoring(opened, tab, show, own.outputs())
    work_form.keeping(own, keep)
    submitted = gr.Textbox(visible="hidden", elem_id=f"{ID}_submitted")

    def connect(button: str) -> None:
        def submit(data: dict[Any, Any], request: gr.Request) -> str:
            owner = owner_of(request.request)
            keep(data, request)

            def queue() -> Job:
                wanted = asked(app, owner, recipe(controls.values(data)), own.values(data), grid=button == MANY)
                return cast(Job, app.submit(wanted, owner=owner, origin=ORIGIN))
            return queued(queue)
        event = quietly(own.buttons[button].click, submit, inputs={*controls.inputs(), *own.inputs()},
                        outputs=submitted)
        quietly(event.then, inputs=submitted, js="answer => window.darkroom.previewing(JSON.parse(answer || '{}'))")

    connect(ONE)
    connect(MANY)


def asked(app: Any, owner: str, recipe: Recipe, values: Mapping[str, Any], grid: bool) -> Request:
    """Return the request of a preview by the values of its fields; raises ``InvalidRequest`` naming one."""
    typed = {field.name: value_of(field, values.get(field.name)) for field in FIELDS}
    form = txt2img.form(app)
    stored = restored(form, app.forms.load(owner, txt2img.TAB))
    base = read(form, stored, app.settings.get())
    varied = Grid(x_type=MULTIPLIER, x_values=typed["ratios"]) if grid else Grid()
    return dataclasses.replace(
        base, merge=dataclasses.replace(recipe, name=""), prompt=typed["prompt"] or base.prompt, seed=typed["seed"],
        batch_size=1, batch_count=1, enable_hr=False, refiner="", model="", grid=varied, save_images=False)
