"""The txt2img tab: AUTOMATIC1111's labels, order and element ids."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, cast

import gradio as gr

from modules.core.errors import InvalidRequest
from modules.core.job import Job
from modules.core.request import Request
from modules.library.infotext import parse
from modules.library.inputs import Inputs
from modules.web import generation, hires, plot_form
from modules.web import generation_layout as layout
from modules.web.answers import owner_of
from modules.web.controls import Controls
from modules.web.events import quietly
from modules.web.form import Form, read
from modules.web.generation_form import complete, shared_fields
from modules.web.image_fields import known
from modules.web.paste import paste
from modules.web.tabs import Tab

TAB = "txt2img"
FIELDS: Form = (*shared_fields(TAB), *hires.FIELDS, *plot_form.fields(TAB))


def form(app: Any) -> Form:
    """Return the fields of the tab, those of all loaded plugins included."""
    return complete(FIELDS, TAB, app)


def request(fields: Form, values: Mapping[str, Any], app: Any) -> Request:
    """Return what the values of the form ask for; raises ``InvalidRequest`` naming the field."""
    grid = plot_form.grid_of(fields, values, app.axes(TAB))
    return dataclasses.replace(read(fields, values, app.settings.get()), grid=grid)


def submit(fields: Form, values: Mapping[str, Any], app: Any, owner: str) -> Job:
    """Queue what the values of the form ask for."""
    return cast(Job, app.submit(request(fields, values, app), owner=owner))


GENERATOR = generation.Generator(TAB, form, submit)


def build(app: Any) -> Controls:
    """Lay the tab out; return its controls."""
    controls = Controls(form(app))
    layout.build_top(controls, TAB)
    with gr.Row(elem_id="txt2img_body", elem_classes="tab-columns", equal_height=False):
        with gr.Column(elem_id="txt2img_settings", min_width=320):
            layout.build_networks(TAB)
            _settings(controls)
            controls.places["hires"] = hires.build(controls)
            layout.build_more(controls, TAB, app)
        layout.build_results(TAB)
    return controls


def wire(controls: Controls, app: Any, tab: Any, page: Any) -> None:
    """Connect what all tabs have that make pictures, and hires fix."""
    generation.wire(GENERATOR, controls, app, tab, page)
    _wire_upscale(controls, app)
    hires.wire(controls, controls.places["hires"])


def upscaled(form: Form, values: Mapping[str, Any], infotext: str, app: Any) -> dict[str, Any]:
    """Return the values that make the picture of ``infotext`` again, alone, with the hires fix of ``values``.

    Raises ``InvalidRequest`` where the picture carries no parameters.
    """
    if not parse(infotext).parameters:
        raise InvalidRequest("This picture carries no generation parameters.", "Only pictures with them can be redone.")
    hires_names = {field.name for field in hires.FIELDS}
    kept = {name: value for name, value in values.items() if name in hires_names}
    return {**values, **paste(form, infotext, app).values, **kept, "enable_hr": True, "batch_count": 1, "batch_size": 1,
            "styles": ()}


def first_pass(values: Mapping[str, Any], picture: str, app: Any) -> str:
    """Return the id ``picture`` where it is what the first pass of ``values`` made, empty where that must be made."""
    inputs = Inputs(app.folders.inputs)
    if not known(picture, inputs):
        return ""
    found = inputs.get(picture)
    return picture if (found.width, found.height) == (values["width"], values["height"]) else ""


def _settings(controls: Controls) -> None:
    layout.build_sampler(controls, TAB)
    with gr.Row(elem_id="txt2img_dimensions_row"):
        layout.build_sides(controls, TAB)
        layout.build_batch(controls, TAB)
    controls.show("cfg_scale")
    layout.build_seed(controls, TAB)
    with gr.Row(elem_id="txt2img_checkboxes"):
        controls.show("restore_faces", container=False, min_width=80)
        controls.show("tiling", container=False, min_width=80)


def _wire_upscale(controls: Controls, app: Any) -> None:
    """The button below a picture makes it again with hires fix."""
    def upscale(data: dict[Any, Any], request: gr.Request) -> str:
        def queue() -> Job:
            picture = json.loads(data[shown] or "{}")
            values = upscaled(controls.form, controls.values(data), picture.get("infotext", ""), app)
            asked = dataclasses.replace(read(controls.form, values, app.settings.get()),
                                        firstpass_image=first_pass(values, picture.get("id", ""), app))
            return cast(Job, app.submit(asked, owner=owner_of(request.request)))
        return generation.queued(queue)

    submitted = controls.places["submitted"]
    shown = gr.Textbox(visible="hidden", elem_id="txt2img_shown_picture")
    again = gr.Button(visible="hidden", elem_id="txt2img_upscale_shown")
    taken = quietly(again.click, outputs=shown, js="() => window.darkroom.shown()")
    generation.tell(quietly(taken.then, upscale, inputs={*controls.inputs(), shown}, outputs=submitted), submitted)


ENTRY = Tab(TAB, "txt2img", build, wire)
