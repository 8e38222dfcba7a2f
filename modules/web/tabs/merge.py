"""The Checkpoint Merger tab: AUTOMATIC1111's labels and element ids, with more methods, block weights and rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from modules.core import codec, merge
from modules.core.errors import DarkroomError
from modules.core.merge import METHODS, Recipe
from modules.core.merge_blocks import PRESETS
from modules.core.merge_metadata import combined, read_recipe
from modules.library.headers import read_header, read_metadata
from modules.web import merge_preview, work_form
from modules.web.answers import failure_view, owner_of
from modules.web.controls import Controls, markup, shown_choices
from modules.web.events import quietly, restoring
from modules.web.form import Field, Form, restored, to_storage
from modules.web.generation import queued
from modules.web.lora_forms import SECTIONS, TAGS_HELP
from modules.web.merge_fields import CONFIG_LABELS
from modules.web.tabs import Tab
from modules.web.work_form import listed, tell, values_from

TAB = "modelmerger"
MODELS = ("model_a", "model_b", "model_c")
BLOCKS_HELP = "A preset's name, or numbers: 26 with BASE or 25 for Stable Diffusion 1, 20 or 19 for XL."
FIELDS: Form = (
    Field("model_a", "Primary model (A)", "choice", "", f"{TAB}_primary_model_name", empty="None"),
    Field("model_b", "Secondary model (B)", "choice", "", f"{TAB}_secondary_model_name", empty="None"),
    Field("model_c", "Tertiary model (C)", "choice", "", f"{TAB}_tertiary_model_name", empty="None"),
    Field("name", "Custom Name (Optional)", "text", "", f"{TAB}_custom_name"),
    Field("method", "Interpolation Method", "choice", merge.WEIGHTED_SUM, f"{TAB}_interp_method",
          choices=tuple(METHODS), labels=tuple(one.label for one in METHODS.values()), strict=True),
    Field("alpha", "Multiplier (M) - set to 0 to get model A", "slider", 0.3, f"{TAB}_interp_amount",
          minimum=0.0, maximum=1.0, step=0.05),
    Field("beta", "Beta", "slider", 0.5, f"{TAB}_beta", minimum=0.0, maximum=1.0, step=0.05),
    Field("seed", "Seed", "number", 0, f"{TAB}_seed", minimum=0, maximum=2**32 - 1),
    Field("block_alpha", "Block weights", "text", "", f"{TAB}_block_weights", help=BLOCKS_HELP,
          placeholder=", ".join(list(PRESETS)[4:9])),
    Field("block_beta", "Block weights of beta", "text", "", f"{TAB}_block_weights_beta"),
    Field("rules", "Rules", "text", "", f"{TAB}_rules", lines=3,
          help="blocks:elements:ratio, one a line; later ones win.", placeholder="OUT00-OUT05:attn2:0.7\nvae::0"),
    Field("format", "Checkpoint format", "radio", merge.SAFETENSORS, f"{TAB}_checkpoint_format",
          choices=(merge.CKPT, merge.SAFETENSORS, merge.DIFFUSERS), strict=True),
    Field("dtype", "Save as", "choice", merge.AS_STORED, f"{TAB}_save_as_half", empty="As model A",
          choices=merge.DTYPES[1:]),
    Field("ema", "Averaged (EMA) weights", "radio", merge.DROP_EMA, f"{TAB}_ema", choices=merge.EMA,
          labels=("Drop", "Keep", "Use"), strict=True),
    Field("config", "Copy config from", "radio", merge.FROM_ANY, f"{TAB}_config_method", choices=merge.CONFIGS,
          labels=CONFIG_LABELS, strict=True),
    Field("vae", "Bake in VAE", "choice", "", f"{TAB}_bake_in_vae", empty="None"),
    Field("loras", "LoRAs to add", "text", "", f"{TAB}_loras_to_add", lines=3, help=TAGS_HELP,
          placeholder="<lora:name:0.8>"),
    Field("discard", "Discard weights with matching name", "text", "", f"{TAB}_discard_weights"),
    Field("save_metadata", "Save metadata", "checkbox", True, f"{TAB}_save_metadata"),
    Field("add_recipe", "Add merge recipe metadata", "checkbox", True, f"{TAB}_add_recipe"),
    Field("copy_metadata", "Copy metadata from merged models", "checkbox", True, f"{TAB}_copy_metadata"),
    Field("metadata_json", "Metadata in JSON format", "text", "", f"{TAB}_metadata_json", lines=4),
)


def form(app: Any) -> Form:
    """Return the fields with the models and VAEs that are on disk now."""
    models, vaes = ([one.name for one in found] for found in (app.library.checkpoints(), app.library.vaes()))
    choices = dict.fromkeys(MODELS, models) | {"vae": vaes}
    return listed(FIELDS, choices)


def recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe that the values of the form ask for; raises ``InvalidRequest`` naming the field."""
    return Recipe(**values_from(FIELDS, values))


def values_of(found: Recipe, app: Any) -> dict[str, Any]:
    """Return the values of the form that a recipe stands for; models that are not here are left as they are named."""
    def here(name: str) -> str:
        try:
            return str(app.library.find_checkpoint(name).name)
        except DarkroomError:
            return name
    values = codec.encode(found) | {"name": ""}
    return values | {name: here(values[name]) for name in MODELS if values[name]}


def build(app: Any) -> tuple[Controls, ...]:
    """Lay the tab out; return the controls of its sections, the merging of checkpoints first."""
    with gr.Row(elem_id=f"{TAB}_body", elem_classes="tab-columns", equal_height=False):
        with gr.Column(elem_id=f"{TAB}_settings", min_width=320, scale=3), gr.Tabs(elem_id=f"{TAB}_sections"):
            with gr.Tab("Checkpoints", elem_id=f"{TAB}_checkpoints"):
                controls = _checkpoints(app)
            others = []
            for section in SECTIONS:
                with gr.Tab(section.label, elem_id=f"{section.id}_section"):
                    others.append(work_form.build(section, app))
        with gr.Column(elem_id=f"{TAB}_results_column", min_width=320, scale=2):
            markup("<darkroom-merge></darkroom-merge>", elem_id=f"{TAB}_results")
            merge_preview.build(controls)
    return (controls, *others)


def _checkpoints(app: Any) -> Controls:
    controls = Controls(form(app))
    _models(controls)
    _output(controls)
    _metadata(controls)
    work_form.act(controls, "Merge", f"{TAB}_merge")
    return controls


def _models(controls: Controls) -> None:
    with gr.Row(elem_id=f"{TAB}_models"):
        for name in MODELS:
            controls.show(name, min_width=180)
        controls.tool("Look for new checkpoints", f"{TAB}_refresh", "refresh")
    controls.show("name")
    controls.show("method")
    controls.places["formula"] = markup(described(merge.WEIGHTED_SUM), elem_id=f"{TAB}_interp_description")
    controls.show("alpha")
    controls.show("beta", visible=False)
    controls.show("seed", visible=False)
    with gr.Accordion("Block weights and rules", open=False, elem_id=f"{TAB}_blocks"):
        controls.show("block_alpha")
        controls.show("block_beta", visible=False)
        controls.show("rules")
    with gr.Accordion("LoRAs", open=False, elem_id=f"{TAB}_loras_accordion"):
        work_form.show_loras(controls, f"{TAB}_add_lora")


def _output(controls: Controls) -> None:
    with gr.Row():
        controls.show("format", min_width=180)
        controls.show("dtype", min_width=180)
    with gr.Row():
        controls.show("config", min_width=180)
        controls.show("ema", min_width=180)
    controls.show("vae")
    controls.show("discard")


def _metadata(controls: Controls) -> None:
    with gr.Accordion("Metadata", open=False, elem_id=f"{TAB}_metadata"):
        for name in ("save_metadata", "add_recipe", "copy_metadata", "metadata_json"):
            controls.show(name)
        controls.button("Read metadata from selected checkpoints", f"{TAB}_read_metadata")
    controls.button("Read the recipe of model A", f"{TAB}_read_recipe")


def described(method: str) -> str:
    """Return the formula of a method as markup."""
    return f'<p class="hint formula">{METHODS[method].formula.replace("<", "&lt;")}</p>'


def shown(method: str, controls: Controls) -> dict[Any, Any]:
    """Return which controls ``method`` needs, and what its numbers are called."""
    info = METHODS.get(method, METHODS[merge.WEIGHTED_SUM])
    name = f"{info.alpha} (M) - set to 0 to get model A" if info.alpha == "Multiplier" else f"{info.alpha} (alpha)"
    return {
        controls.places["formula"]: gr.update(value=described(info.id)),
        controls["model_b"]: gr.update(visible=info.models > 1),
        controls["model_c"]: gr.update(visible=info.models > 2),
        controls["alpha"]: gr.update(visible=bool(info.alpha), label=name),
        controls["beta"]: gr.update(visible=bool(info.beta), label=f"{info.beta} (beta)"),
        controls["block_beta"]: gr.update(visible=bool(info.beta)),
        controls["seed"]: gr.update(visible=info.id == "dare"),
    }


def wire(sections: tuple[Controls, ...], app: Any, tab: Any, page: Any) -> None:
    """Connect the sections: their forms are kept, their buttons queue, recipes are read back into the first."""
    controls, *others = sections
    again = gr.Button(visible="hidden", elem_id=f"{TAB}_reload")
    opened = [tab.select, again.click]
    _wire_checkpoints(controls, app, [*opened, controls.buttons[f"{TAB}_refresh"].click])
    for section, own in zip(SECTIONS, others, strict=True):
        work_form.wire(section, own, app, TAB, opened)


def _wire_checkpoints(controls: Controls, app: Any, opened: list[Any]) -> None:
    changing = [controls.places["formula"], *(controls[name] for name in (
        "model_b", "model_c", "alpha", "beta", "block_beta", "seed"))]
    told = gr.Textbox(visible="hidden", elem_id=f"{TAB}_submitted")

    def keep(data: dict[Any, Any], request: gr.Request) -> None:
        app.forms.save(owner_of(request.request), TAB, to_storage(controls.values(data)))

    def show(request: gr.Request) -> Any:
        current = form(app)
        values = restored(current, app.forms.load(owner_of(request.request), TAB))
        return _filled(controls, current, values) | work_form.added(controls, app)

    def submit(data: dict[Any, Any], request: gr.Request) -> str:
        keep(data, request)
        return queued(lambda: app.submit_work(recipe(controls.values(data)), owner=owner_of(request.request)))

    def read(data: dict[Any, Any], request: gr.Request) -> Any:
        try:
            model = app.library.find_checkpoint(str(controls.values(data).get("model_a") or ""))
            values = restored(form(app), values_of(read_recipe(read_metadata(read_header(model.path))), app))
        except DarkroomError as error:
            return {told: json.dumps(failure_view(error))}
        app.forms.save(owner_of(request.request), TAB, to_storage(values))
        return _filled(controls, form(app), values) | {told: "{}"}

    def metadata(data: dict[Any, Any]) -> Any:
        try:
            chosen = [app.library.find_checkpoint(name) for key, name in controls.values(data).items()
                      if key in MODELS and name]
            text = json.dumps(combined([read_metadata(read_header(one.path)) for one in chosen]), indent=2)
        except DarkroomError as error:
            return {told: json.dumps(failure_view(error))}
        return {controls["metadata_json"]: text, told: "{}"}

    everything = [*controls.outputs(), controls.places["formula"]]
    restoring(opened, TAB, show, [*everything, *work_form.added_outputs(controls)])
    merge_preview.wire(controls, app, recipe, opened, TAB)
    work_form.keeping(controls, keep)
    quietly(controls["method"].change, lambda method: shown(method, controls), inputs=controls["method"],
            outputs=changing)
    merged = quietly(controls.buttons[f"{TAB}_merge"].click, submit, inputs=controls.inputs(), outputs=told)
    tell(merged, told)
    tell(quietly(controls.buttons[f"{TAB}_read_recipe"].click, read, inputs=controls.inputs(),
                 outputs=[*everything, told]), told)
    looked = quietly(controls.buttons[f"{TAB}_read_metadata"].click, metadata, inputs=controls.inputs(),
                     outputs=[controls["metadata_json"], told])
    quietly(looked.then, keep, inputs=controls.inputs())
    tell(looked, told)


def _filled(controls: Controls, current: Form, values: Mapping[str, Any]) -> dict[Any, Any]:
    updates = controls.updates(values)
    for control, update in shown(str(values["method"]), controls).items():
        updates[control] = {**updates.get(control, {}), **update}
    for field in current:
        if field.name in (*MODELS, "vae"):
            updates[controls[field.name]]["choices"] = shown_choices(field)
    return updates


ENTRY = Tab(TAB, "Checkpoint Merger", build, wire)
