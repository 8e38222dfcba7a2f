"""The Extras tab: pictures made larger, faces restored, under AUTOMATIC1111's labels and element ids."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any, cast

import gradio as gr

from modules.core.errors import InvalidRequest
from modules.core.extras import KIND, NO_UPSCALER, SCALE_BY, SCALE_TO, Extras, Source
from modules.core.job import Job
from modules.library.face_restorers import CODEFORMER, GFPGAN, face_restorers, lacking
from modules.web import image_batch
from modules.web.answers import owner_of
from modules.web.controls import Controls, markup, shown_choices
from modules.web.events import listen, quietly, restoring
from modules.web.form import (
    Field,
    Form,
    plugin_fields,
    plugin_values,
    restored,
    to_storage,
    value_of,
    with_choices,
)
from modules.web.generation import queued, submission, tell
from modules.web.generation_layout import build_plugins, build_results
from modules.web.tabs import Tab

TAB = KIND
SINGLE, BATCH, DIRECTORY = "single", "batch", "directory"
UPSCALERS = ("upscaler_1", "upscaler_2")
OF_DIRECTORY = ("batch_input_dir", "batch_output_dir", "show_extras_results")
# Whose files each field of face restoration needs.
RESTORERS = {"gfpgan_visibility": GFPGAN, "codeformer_visibility": CODEFORMER, "codeformer_weight": CODEFORMER}

FIELDS: Form = (
    Field("mode", "Mode", "radio", SINGLE, "mode_extras", choices=(SINGLE, BATCH, DIRECTORY),
          labels=("Single Image", "Batch Process", "Batch from Directory"), strict=True),
    Field("batch_input_dir", "Input directory", "text", "", "extras_batch_input_dir",
          placeholder="A folder on the server"),
    Field("batch_output_dir", "Output directory", "text", "", "extras_batch_output_dir",
          placeholder="Folder among the results of Extras, files named as their pictures; empty: as usual"),
    Field("show_extras_results", "Show result images", "checkbox", True, "extras_show_extras_results"),
    Field("resize_mode", "Resize", "radio", SCALE_BY, "extras_resize_mode", choices=(SCALE_BY, SCALE_TO),
          labels=("Scale by", "Scale to"), strict=True),
    Field("upscaling_resize", "Resize", "slider", 4.0, "extras_upscaling_resize", "", 1.0, 8.0, 0.05),
    Field("upscaling_resize_w", "Width", "slider", 512, "extras_upscaling_resize_w", "", 64, 8192, 8),
    Field("upscaling_resize_h", "Height", "slider", 512, "extras_upscaling_resize_h", "", 64, 8192, 8),
    Field("upscaling_crop", "Crop to fit", "checkbox", True, "extras_upscaling_crop"),
    Field("upscaler_1", "Upscaler 1", "choice", NO_UPSCALER, "extras_upscaler_1"),
    Field("upscaler_2", "Upscaler 2", "choice", NO_UPSCALER, "extras_upscaler_2"),
    Field("extras_upscaler_2_visibility", "Upscaler 2 visibility", "slider", 0.0, "extras_upscaler_2_visibility", "",
          0.0, 1.0, 0.001),
    Field("gfpgan_visibility", "GFPGAN visibility", "slider", 0.0, "extras_gfpgan_visibility", "", 0.0, 1.0, 0.001),
    Field("codeformer_visibility", "CodeFormer visibility", "slider", 0.0, "extras_codeformer_visibility", "", 0.0, 1.0,
          0.001),
    Field("codeformer_weight", "CodeFormer weight", "slider", 0.0, "extras_codeformer_weight", "", 0.0, 1.0, 0.001,
          help="0 changes a face most, 1 least."),
    Field("upscale_first", "Upscale before restoring faces", "checkbox", True, "extras_upscale_before_face_fix"),
)


def form(app: Any) -> Form:
    """Return the fields that can be used now: those of a face restorer need its files."""
    there = face_restorers(app.library)
    closed = {name for name, restorer in RESTORERS.items() if restorer not in there}
    return tuple(field for field in every_field(app) if field.name not in closed)


def every_field(app: Any) -> Form:
    """Return the fields with the upscalers that there are now; folders are named only where nobody else can."""
    names = app.offered_upscalers()
    found = [with_choices(field, names) if field.name in UPSCALERS else field for field in FIELDS]
    if not image_batch.is_local(app):
        mode = dataclasses.replace(FIELDS[0], choices=FIELDS[0].choices[:2], labels=FIELDS[0].labels[:2])
        found = [mode, *(field for field in found[1:] if field.name not in OF_DIRECTORY)]
    plugins = (plugin for plugin in app.host.plugins() if TAB in plugin.panels)
    return (*found, *(field for plugin in plugins for field in plugin_fields(plugin.id, plugin.Params, TAB)))


def submit(fields: Form, values: Mapping[str, Any], app: Any, owner: str) -> Job:
    """Queue what the values of the form, and the pictures stored with it, ask for.

    Raises ``InvalidRequest`` naming the field, or where there is no picture or no upscaler.
    """
    typed = {field.name: value_of(field, values.get(field.name)) for field in fields}
    names = {field.name for field in dataclasses.fields(Extras)}
    wanted = Extras(**{name: value for name, value in typed.items() if name in names},
                    plugins=plugin_values(fields, typed))
    changes = any(item.params != type(item.params)() for item in app.host.active(wanted))
    if wanted.upscaler_1 in ("", NO_UPSCALER) and not wanted.restorers and not changes:
        raise InvalidRequest("No upscaler is chosen.", "Choose one under Upscaler 1, or restore faces.")
    sources, problems = _sources(str(typed["mode"]), values, app)
    wanted = dataclasses.replace(wanted, sources=sources)
    folder, shown = "", True
    if typed["mode"] == DIRECTORY:
        folder, shown = image_batch.output_folder(typed["batch_output_dir"]), typed["show_extras_results"]
    return cast(Job, app.submit_extras(wanted, owner=owner, warnings=problems, folder=folder, shown=shown))


def source_of(stored: Mapping[str, Any]) -> Source | None:
    """Return the single picture in the values of a stored form."""
    source = stored.get("source")
    return Source(**source) if isinstance(source, dict) else None


def _sources(mode: str, values: Mapping[str, Any], app: Any) -> tuple[tuple[Source, ...], Sequence[str]]:
    if mode == SINGLE:
        source = source_of(values)
        if source is None:
            raise InvalidRequest("There is no picture to enlarge.", "Drop one into the tab, or send one from another.")
        return (source,), ()
    folder = str(values.get("batch_input_dir") or "").strip() if mode == DIRECTORY else ""
    if mode == DIRECTORY and not folder:
        raise InvalidRequest("Input directory is empty.", "Name a folder with pictures.")
    found = image_batch.sources({"batch_input_dir": folder, "batch": values.get("batch") or ()}, app)
    return tuple(Source(one.image, one.name, one.infotext) for one in found.sources), found.problems


def build(app: Any) -> Controls:
    """Lay the tab out; return its controls."""
    controls = Controls(every_field(app))
    with gr.Row(elem_id="extras_body", elem_classes="tab-columns", equal_height=False):
        with gr.Column(elem_id="extras_settings", min_width=320):
            _pictures(controls)
            _size(controls)
            controls.show("upscaler_1")
            with gr.Row():
                controls.show("upscaler_2", min_width=200)
                controls.show("extras_upscaler_2_visibility", min_width=200)
            _faces(controls, app)
            build_plugins(controls, TAB, app)
        with gr.Column(elem_id="extras_side", min_width=320):
            with gr.Row(elem_id="extras_generate_box"):
                controls.button("Generate", "extras_generate", variant="primary", scale=3)
                with gr.Row(elem_id="extras_running_actions"):
                    controls.button("Interrupt", "extras_interrupt", min_width=80)
                    controls.button("Skip", "extras_skip", min_width=80)
            build_results(TAB)
    return controls


def _pictures(controls: Controls) -> None:
    controls.show("mode", show_label=False, container=False)
    with gr.Column(elem_id="extras_image", elem_classes=["only", f"in-{SINGLE}"]):
        markup("<darkroom-source></darkroom-source>")
    with gr.Column(elem_id="extras_image_batch", elem_classes=["only", f"in-{BATCH}"]):
        markup('<darkroom-batch tab="extras"></darkroom-batch>')
    if any(field.name == "batch_input_dir" for field in controls.form):
        with gr.Column(elem_classes=["only", f"in-{DIRECTORY}"]):
            for name in OF_DIRECTORY:
                controls.show(name)


def _size(controls: Controls) -> None:
    controls.show("resize_mode", show_label=False, container=False)
    with gr.Column(elem_id="extras_scale_by_tab"):
        controls.show("upscaling_resize")
    with gr.Row(elem_id="extras_scale_to_tab"):
        with gr.Column(min_width=180, scale=4):
            controls.show("upscaling_resize_w")
            controls.show("upscaling_resize_h")
        with gr.Column(min_width=110, scale=1):
            controls.tool("Swap width and height", "upscaling_res_switch_btn", "swap")
            controls.show("upscaling_crop", container=False, min_width=110)


def _faces(controls: Controls, app: Any) -> None:
    with gr.Accordion("Restore faces", open=False, elem_id="extras_faces"):
        controls.places["faces"] = markup(missing_files(app), elem_id="extras_faces_missing")
        controls.show("gfpgan_visibility")
        with gr.Row():
            controls.show("codeformer_visibility", min_width=200)
            controls.show("codeformer_weight", min_width=200)
        controls.show("upscale_first", container=False)


def missing_files(app: Any) -> str:
    """Return, as HTML, which files of face restorers are missing and where they go; empty where all are there."""
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in lacking(app.library))


def wire(controls: Controls, app: Any, tab: Any, page: Any) -> None:
    """Connect the tab: every change is stored and shown again when it opens, Generate queues a job."""
    def store(data: dict[Any, Any], request: gr.Request) -> None:
        app.forms.merge(owner_of(request.request), TAB, to_storage(controls.values(data)))

    def restore(request: gr.Request) -> Any:
        current = form(app)
        updates = controls.updates(restored(current, app.forms.load(owner_of(request.request), TAB)))
        for field in current:
            if field.name in UPSCALERS:
                updates[controls[field.name]]["choices"] = shown_choices(field)
        usable = {field.name for field in current}
        for name in RESTORERS:
            updates.setdefault(controls[name], gr.update(value=0.0))["interactive"] = name in usable
        return updates | {controls.places["faces"]: gr.update(value=missing_files(app))}

    def generate(data: dict[Any, Any], request: gr.Request) -> str:
        owner, values = owner_of(request.request), controls.values(data)
        return queued(lambda: submit(form(app), app.forms.merge(owner, TAB, to_storage(values)), app, owner))

    keep = gr.Button(visible="hidden", elem_id="extras_keep")
    changes = [controls[field.name].input for field in controls.form if field.kind != "text"]
    listen([keep.click, *changes], store, inputs=controls.inputs(), trigger_mode="always_last")
    again = gr.Button(visible="hidden", elem_id="extras_reload")
    restoring([tab.select, again.click], TAB, restore, [*controls.outputs(), controls.places["faces"]])
    submitted = submission(TAB)
    tell(quietly(controls.buttons["extras_generate"].click, generate, inputs=controls.inputs(), outputs=submitted,
                 trigger_mode="multiple"), submitted)
    sides = [controls["upscaling_resize_w"], controls["upscaling_resize_h"]]
    click = quietly(controls.buttons["upscaling_res_switch_btn"].click, inputs=sides, outputs=sides,
                    js="(width, height) => [height, width]")
    quietly(click.then, store, inputs=controls.inputs())


ENTRY = Tab(TAB, "Extras", build, wire)
