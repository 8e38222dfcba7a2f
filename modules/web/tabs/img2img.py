"""The img2img tab: AUTOMATIC1111's labels, order and element ids; its modes share one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import gradio as gr

from modules.core.job import Job
from modules.core.request import Request, outpaint_margins
from modules.library.inputs import Inputs
from modules.web import generation, image_batch, plot_form
from modules.web import generation_layout as layout
from modules.web.answers import owner_of
from modules.web.chosen import chosen
from modules.web.controls import Controls, gated, markup
from modules.web.events import listen, quietly
from modules.web.form import Form, read
from modules.web.generation_form import complete, shared_fields
from modules.web.image_fields import BATCH, INPAINTING, MODES, begun, fitting, known, remembered, scaled
from modules.web.image_fields import FIELDS as OWN
from modules.web.tabs import Tab

TAB = "img2img"
FIELDS: Form = (*shared_fields(TAB), *OWN, *image_batch.FIELDS, *plot_form.fields(TAB))
# The editor of each mode; the page's styles show the one of the mode that is chosen.
EDITORS = {
    "image": '<darkroom-editor tab="img2img" mode="image"></darkroom-editor>',
    "sketch": '<darkroom-editor tab="img2img" mode="sketch"></darkroom-editor>',
    "inpaint": '<darkroom-editor tab="img2img" mode="inpaint"></darkroom-editor>',
    "inpaint_sketch": '<darkroom-editor tab="img2img" mode="inpaint_sketch"></darkroom-editor>',
    "inpaint_upload": '<div class="two-editors"><darkroom-editor tab="img2img" mode="image"></darkroom-editor>'
                      '<h3>Mask</h3>'
                      '<darkroom-editor tab="img2img" mode="image" field="mask"></darkroom-editor></div>',
}
DEPTH = ('<h3>Depth map, light is near</h3>'
         '<darkroom-editor tab="img2img" mode="image" field="depth_map"></darkroom-editor>')
EDITOR_IDS = {"image": "img2img_image", "sketch": "img2img_sketch", "inpaint": "img2maskimg",
              "inpaint_sketch": "inpaint_sketch", "inpaint_upload": "img_inpaint_base"}


def form(app: Any) -> Form:
    """Return the fields of the tab, those of all loaded plugins included."""
    hidden = () if image_batch.is_local(app) else image_batch.FOLDERS
    return complete(tuple(field for field in FIELDS if field.name not in hidden), TAB, app)


def request(fields: Form, values: Mapping[str, Any], app: Any) -> Request:
    """Return what the values of the form and the pictures stored with it ask for.

    Raises ``InvalidRequest`` naming the field, or for a picture or mask that is missing.
    """
    inputs, mode = Inputs(app.folders.inputs), str(values.get("mode") or MODES[0])
    asked = read(fields, values, app.settings.get())
    source = begun(mode, values, inputs, grows=any(outpaint_margins(asked)))
    entries = remembered(mode, values, inputs)
    grid = plot_form.grid_of(fields, values, app.axes(TAB))
    return sized(dataclasses.replace(asked, kind=TAB, parameters=entries, grid=grid, **source), values, app)


def sent_picture(body: Mapping[str, str], app: Any) -> dict[str, Any]:
    """Return the values of the form with which a picture sent from elsewhere is shown: its id, its size, the mode.

    A mask or paint of before does not go with it. Raises ``NotFound`` where the picture is not stored.
    """
    picture = Inputs(app.folders.inputs).get(body["init_image"])
    values: dict[str, Any] = {"init_image": picture.id, "mask": "", "sketch": "", "depth_map": ""}
    if body.get("mode") in MODES:
        values["mode"] = body["mode"]
    if app.settings.get().send_size:
        values |= fitting(picture.width, picture.height)
    return values


def submit(fields: Form, values: Mapping[str, Any], app: Any, owner: str) -> Job:
    """Queue what the values of the form ask for: one job, with parts where it is a batch."""
    if values.get("mode") != BATCH:
        return cast(Job, app.submit(request(fields, values, app), owner=owner))
    found = image_batch.sources(values, app)
    grid = plot_form.grid_of(fields, values, app.axes(TAB))
    base = dataclasses.replace(read(fields, values, app.settings.get()), kind=TAB, grid=grid)
    made = image_batch.requests(base, found, values.get("batch_properties") or (),
                                str(values.get("batch_output_dir") or ""))
    parts = [sized(one, values, app) for one in made]
    return cast(Job, app.submit_batch(parts, owner=owner, warnings=found.problems))


def sized(asked: Request, values: Mapping[str, Any], app: Any) -> Request:
    """Return ``asked`` at the size that the form gives, which may depend on the picture, and with a round blur."""
    size: dict[str, Any] = {}
    if values.get("size_by") == "by":
        picture = Inputs(app.folders.inputs).get(asked.init_images[0])
        size = scaled(picture.width, picture.height, float(values.get("scale") or 1.0))
    return dataclasses.replace(asked, mask_blur_y=asked.mask_blur_x, **size)


GENERATOR = generation.Generator(TAB, form, submit)


def build(app: Any) -> Controls:
    """Lay the tab out; return its controls."""
    controls = Controls(form(app))
    layout.build_top(controls, TAB)
    with gr.Row(elem_id="img2img_body", elem_classes="tab-columns", equal_height=False):
        with gr.Column(elem_id="img2img_settings", min_width=320):
            layout.build_networks(TAB)
            _pictures(controls)
            _settings(controls)
            _outpainting(controls)
            layout.build_more(controls, TAB, app)
        layout.build_results(TAB)
    return controls


def wire(controls: Controls, app: Any, tab: Any, page: Any) -> None:
    """Connect what all tabs have that make pictures, and the picture's size."""
    store = generation.wire(GENERATOR, controls, app, tab, page)

    def size(request: gr.Request) -> list[Any]:
        inputs = Inputs(app.folders.inputs)
        key = known(app.forms.load(owner_of(request.request), TAB).get("init_image"), inputs)
        if not key:
            return [gr.skip(), gr.skip()]
        picture = inputs.get(key)
        return list(fitting(picture.width, picture.height).values())

    click = quietly(controls.buttons["img2img_detect_image_size_btn"].click, size,
                    outputs=[controls["width"], controls["height"]])
    quietly(click.then, store, inputs=controls.inputs())
    listen([page.load, tab.select], lambda: _shown(chosen(app).takes),
           outputs=[controls["image_cfg_scale"], controls.places["depth"]])
    quietly(controls["scale"].change, inputs=controls["scale"], js="scale => window.darkroom.scaled(scale)")


def _shown(takes: str) -> list[Any]:
    """Return whether to show what only models that edit, or that are told the depth, need."""
    return [gr.update(visible=takes == kind) for kind in ("edit", "depth")]


def _pictures(controls: Controls) -> None:
    controls.show("mode", show_label=False, container=False)
    for mode in EDITORS:
        with gr.Column(elem_id=EDITOR_IDS[mode], elem_classes=["only", f"in-{mode}"]):
            markup(EDITORS[mode])
    with gr.Column(elem_id="img2img_depth", elem_classes=["only", *(f"in-{mode}" for mode in MODES if mode != BATCH)],
                   visible=False) as controls.places["depth"]:
        markup(DEPTH)
    with gr.Column(elem_id="img2img_batch", elem_classes=["only", f"in-{BATCH}"]):
        markup('<darkroom-batch tab="img2img"></darkroom-batch>')
        for field in image_batch.FIELDS:
            if any(field.name == one.name for one in controls.form):
                controls.show(field.name)
    with gr.Column(elem_id="inpaint_controls", elem_classes=["only", *(f"in-{mode}" for mode in (*INPAINTING, BATCH))]):
        with gr.Row():
            controls.show("mask_blur", min_width=180)
            controls.show("inpaint_full_res_padding", min_width=180)
        with gr.Row():
            controls.show("mask_mode", min_width=200)
            controls.show("inpaint_full_res", min_width=200)
        controls.show("inpainting_fill")
        controls.show("inpaint_mode")


def _settings(controls: Controls) -> None:
    controls.show("resize_mode")
    layout.build_sampler(controls, TAB)
    controls.show("size_by", show_label=False, container=False)
    with gr.Row(elem_id="img2img_dimensions_row"):
        layout.build_sides(controls, TAB)
        with gr.Column(elem_id="img2img_column_scale", scale=4, min_width=180):
            controls.show("scale")
            with gr.Column(elem_classes=["only", *(f"in-{mode}" for mode in EDITORS)]):
                markup('<darkroom-scaled></darkroom-scaled>', elem_id="img2img_scale_resolution_preview")
        layout.build_batch(controls, TAB)
    with gr.Row():
        controls.show("cfg_scale", min_width=180)
        controls.show("image_cfg_scale", min_width=180, visible=False)
        controls.show("denoising_strength", min_width=180)
    layout.build_seed(controls, TAB)
    controls.show("noise_multiplier")
    with gr.Row(elem_id="img2img_checkboxes"):
        controls.show("restore_faces", container=False, min_width=80)
        controls.show("tiling", container=False, min_width=80)


def _outpainting(controls: Controls) -> None:
    with gated(controls, "outpaint_enable", "img2img_outpaint"):
        for pair in (("outpaint_left", "outpaint_right"), ("outpaint_up", "outpaint_down")):
            with gr.Row():
                for name in pair:
                    controls.show(name, min_width=160)
        controls.show("outpaint_fill")
        with gr.Row():
            controls.show("outpaint_noise_q", min_width=160)
            controls.show("outpaint_color_variation", min_width=160)


ENTRY = Tab(TAB, "img2img", build, wire)
