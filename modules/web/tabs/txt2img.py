"""The txt2img tab: AUTOMATIC1111's labels, order and element ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import gradio as gr

from modules.core.errors import DarkroomError, InvalidRequest
from modules.core.job import Job
from modules.library.infotext import parse
from modules.sampling.samplers import SAMPLERS
from modules.sampling.schedules import SCHEDULES
from modules.web import hires, styles
from modules.web.answers import failure_view, owner_of
from modules.web.chosen import chosen
from modules.web.controls import Controls, markup, shown_choices
from modules.web.events import listen, quietly
from modules.web.form import (
    OVERRIDES,
    PLUGIN_SEPARATOR,
    Field,
    Form,
    plugin_fields,
    read,
    restored,
    to_storage,
    with_choices,
)
from modules.web.paste import paste
from modules.web.tabs import Tab

TAB = "txt2img"
# Choices that may be others at the next look: files come and go, settings hide samplers.
LISTED = ("sampler", "styles", "hr_checkpoint", "hr_sampler", "refiner")
PROMPT_HINT = "Prompt (Ctrl+Enter generates, Alt+Enter skips, Esc interrupts)"

FIELDS: Form = (
    Field("prompt", "Prompt", "text", "", "txt2img_prompt", "prompt", lines=3, placeholder=PROMPT_HINT),
    Field("negative_prompt", "Negative prompt", "text", "", "txt2img_neg_prompt", "negative_prompt", lines=3,
          placeholder="Negative prompt"),
    Field("styles", "Styles", "choices", (), "txt2img_styles", "styles"),
    Field("sampler", "Sampling method", "choice", "DPM++ 2M", "txt2img_sampling", "sampler"),
    Field("schedule", "Schedule type", "choice", "Automatic", "txt2img_scheduler", "schedule"),
    Field("steps", "Sampling steps", "slider", 20, "txt2img_steps", "steps", 1, 150, 1),
    Field("width", "Width", "slider", 512, "txt2img_width", "width", 64, 2048, 8),
    Field("height", "Height", "slider", 512, "txt2img_height", "height", 64, 2048, 8),
    Field("batch_count", "Batch count", "slider", 1, "txt2img_batch_count", "batch_count", 1, 100, 1),
    Field("batch_size", "Batch size", "slider", 1, "txt2img_batch_size", "batch_size", 1, 8, 1),
    Field("cfg_scale", "CFG Scale", "slider", 7.0, "txt2img_cfg_scale", "guidance_scale", 1.0, 30.0, 0.5),
    Field("seed", "Seed", "seed", -1, "txt2img_seed", "seed", -1),
    Field("subseed_show", "Extra", "checkbox", False, "txt2img_subseed_show"),
    Field("subseed", "Variation seed", "seed", -1, "txt2img_subseed", "subseed", -1),
    Field("subseed_strength", "Variation strength", "slider", 0.0, "txt2img_subseed_strength", "subseed_strength",
          0.0, 1.0, 0.01),
    Field("seed_resize_from_w", "Resize seed from width", "slider", 0, "txt2img_seed_resize_from_w",
          "seed_resize_from_w", 0, 2048, 8),
    Field("seed_resize_from_h", "Resize seed from height", "slider", 0, "txt2img_seed_resize_from_h",
          "seed_resize_from_h", 0, 2048, 8),
    Field("tiling", "Tiling", "checkbox", False, "txt2img_tiling", "tiling"),
    *hires.FIELDS,
    Field(OVERRIDES, "Override settings", "choices", (), "txt2img_override_settings"),
)


def form(app: Any) -> Form:
    """Return the fields of the tab, those of all loaded plugins included."""
    hidden = app.settings.get().hide_samplers
    samplers = tuple(item.name for item in SAMPLERS if item.name not in hidden)
    schedules = tuple(item.label for item in SCHEDULES)
    checkpoints = tuple(item.name for item in app.library.checkpoints())
    choices = {"sampler": samplers, "schedule": schedules, "styles": tuple(app.styles.all()),
               "hr_checkpoint": checkpoints, "hr_sampler": samplers, "hr_schedule": schedules, "refiner": checkpoints}
    plugins = (found.plugin for found in app.host.found if found.plugin is not None)
    return tuple(
        with_choices(item, choices[item.name]) if item.name in choices else item for item in FIELDS
    ) + tuple(field for plugin in plugins for field in plugin_fields(plugin.id, plugin.Params, TAB))


def build(app: Any) -> Controls:
    """Lay the tab out; return its controls."""
    controls = Controls(form(app))
    with gr.Row(elem_id="txt2img_toprow", equal_height=False):
        with gr.Column(elem_id="txt2img_prompt_container", scale=6, min_width=320):
            _prompts(controls)
        with gr.Column(elem_id="txt2img_actions_column", scale=1, min_width=220):
            _actions(controls)
    with gr.Row(elem_id="txt2img_body", equal_height=False):
        with gr.Column(elem_id="txt2img_settings", min_width=320):
            _settings(controls)
            controls.places["hires"] = hires.build(controls)
            _plugins(controls, app)
            controls.show(OVERRIDES, elem_classes=["override-settings"])
        with gr.Column(elem_id="txt2img_results", min_width=320):
            markup("<darkroom-results></darkroom-results>", elem_id="txt2img_results_panel")
    return controls


def wire(controls: Controls, app: Any, tab: Any, page: Any) -> None:
    """Connect the tab: every change is stored, the buttons act, the stored form is shown when the tab opens."""
    store, restore = _store(controls, app), _restore(controls, app)
    everything, outputs = controls.inputs(), controls.outputs()
    keep = gr.Button(visible="hidden", elem_id="txt2img_keep")
    # Gradio's own event of a text box leaves out what is pasted, cut, deleted or undone: the page presses ``keep``.
    changes = [controls[field.name].input for field in controls.form if field.kind not in ("text", "seed")]
    listen([keep.click, *changes], store, inputs=everything, trigger_mode="always_last")
    again = gr.Button(visible="hidden", elem_id="txt2img_reload")
    for event in (page.load, tab.select, again.click):
        quietly(event, restore, outputs=outputs)
    _wire_generate(controls, app)
    _wire_paste(controls, app)
    _wire_scripts(controls, store)
    _wire_size(controls, app, store)
    hires.wire(controls, controls.places["hires"])
    styles.wire(controls, app, store)


def _prompts(controls: Controls) -> None:
    for name, counter in (("prompt", "txt2img_token_counter"), ("negative_prompt", "txt2img_negative_token_counter")):
        with gr.Column(elem_classes=["prompt-row"]):
            controls.show(name, show_label=False, container=False, max_lines=18)
            markup('<span class="token-counter">0/75</span>', elem_id=counter)


def _actions(controls: Controls) -> None:
    with gr.Column(elem_id="txt2img_generate_box"):
        controls.button("Generate", "txt2img_generate", variant="primary")
        with gr.Row(elem_id="txt2img_running_actions"):
            controls.button("Interrupt", "txt2img_interrupt")
            controls.button("Skip", "txt2img_skip")
    with gr.Row(elem_id="txt2img_tools"):
        controls.tool("Read generation parameters", "paste", "paste")
        controls.tool("Clear prompt", "txt2img_clear_prompt", "clear")
    styles.build(controls)


def _settings(controls: Controls) -> None:
    with gr.Row(elem_id="sampler_selection_txt2img"):
        controls.show("sampler", min_width=140)
        controls.show("schedule", min_width=140)
        controls.show("steps", min_width=180)
    with gr.Row(elem_id="txt2img_dimensions_row"):
        with gr.Column(elem_id="txt2img_column_size", scale=4, min_width=180):
            controls.show("width")
            controls.show("height")
        with gr.Column(elem_id="txt2img_dimensions_buttons", scale=0, min_width=36):
            controls.tool("Swap width and height", "txt2img_res_switch_btn", "swap")
            controls.tool("Size that the model was made for", "txt2img_res_native_btn", "native")
        with gr.Column(elem_id="txt2img_column_batch", scale=4, min_width=180):
            controls.show("batch_count")
            controls.show("batch_size")
    controls.show("cfg_scale")
    with gr.Row(elem_id="txt2img_seed_row", elem_classes=["seed-row"]):
        controls.show("seed", scale=4, min_width=120)
        controls.tool("Random seed", "txt2img_random_seed", "dice")
        controls.tool("Reuse seed of the shown picture", "txt2img_reuse_seed", "recycle")
        controls.show("subseed_show", scale=0, min_width=80)
    with gr.Column(elem_id="txt2img_seed_extras", elem_classes=["seed-extras"]):
        with gr.Row(elem_classes=["seed-row"]):
            controls.show("subseed", scale=4, min_width=120)
            controls.tool("Random variation seed", "txt2img_random_subseed", "dice")
            controls.tool("Reuse variation seed of the shown picture", "txt2img_reuse_subseed", "recycle")
            controls.show("subseed_strength", scale=4, min_width=160)
        with gr.Row():
            controls.show("seed_resize_from_w", min_width=160)
            controls.show("seed_resize_from_h", min_width=160)
    with gr.Row(elem_id="txt2img_checkboxes"):
        controls.show("tiling", container=False, min_width=80)


def _plugins(controls: Controls, app: Any) -> None:
    with gr.Column(elem_id="txt2img_script_container"):
        for found in app.host.found:
            own = [field.name for field in controls.form if field.name.startswith(f"{found.id}{PLUGIN_SEPARATOR}")]
            if not own:
                continue
            with gr.Accordion(found.plugin.name or found.id, open=False, elem_id=f"txt2img_{found.id}"):
                for name in own:
                    controls.show(name)




def _store(controls: Controls, app: Any) -> Callable[..., None]:
    def store(data: dict[Any, Any], request: gr.Request) -> None:
        app.forms.save(owner_of(request.request), TAB, to_storage(controls.values(data)))
    return store


def _restore(controls: Controls, app: Any) -> Callable[..., Any]:
    def restore(request: gr.Request) -> Any:
        current = form(app)
        # A form that was never touched starts at the size that the model was made for.
        native = chosen(app).size
        stored = {"width": native, "height": native} | app.forms.load(owner_of(request.request), TAB)
        updates = controls.updates(restored(current, stored))
        for field in current:
            if field.name in LISTED:
                updates[controls[field.name]]["choices"] = shown_choices(field)
        return updates
    return restore


def _wire_generate(controls: Controls, app: Any) -> None:
    """Generate queues a job and tells the page's scripts, which follow it from there. So does the button below a
    picture that makes it again with hires fix.
    """
    def generate(data: dict[Any, Any], request: gr.Request) -> str:
        owner, values = owner_of(request.request), controls.values(data)

        def queue() -> Job:
            app.forms.save(owner, TAB, to_storage(values))
            return cast(Job, app.submit(read(controls.form, values, app.settings.get()), owner=owner))
        return _queued(queue)

    def upscale(data: dict[Any, Any], request: gr.Request) -> str:
        def queue() -> Job:
            values = upscaled(controls.form, controls.values(data), data[shown] or "", app)
            return cast(Job, app.submit(read(controls.form, values, app.settings.get()),
                                        owner=owner_of(request.request)))
        return _queued(queue)

    submitted = gr.Textbox(visible="hidden", elem_id="txt2img_submitted")
    shown = gr.Textbox(visible="hidden", elem_id="txt2img_shown_infotext")
    again = gr.Button(visible="hidden", elem_id="txt2img_upscale_shown")
    click = quietly(controls.buttons["txt2img_generate"].click, generate, inputs=controls.inputs(), outputs=submitted,
                    trigger_mode="multiple")
    taken = quietly(again.click, outputs=shown, js="() => window.darkroom.infotext()")
    sent = quietly(taken.then, upscale, inputs={*controls.inputs(), shown}, outputs=submitted)
    for event in (click, sent):
        quietly(event.then, inputs=submitted, js="answer => window.darkroom.submitted(JSON.parse(answer))")


def _queued(queue: Callable[[], Job]) -> str:
    """Return the job that ``queue`` makes, or why there is none, for the page's scripts."""
    try:
        job = queue()
    except DarkroomError as error:
        return json.dumps(failure_view(error))
    return json.dumps({"id": job.id, "warnings": job.warnings})


def upscaled(form: Form, values: Mapping[str, Any], infotext: str, app: Any) -> dict[str, Any]:
    """Return the values that make the picture of ``infotext`` again, alone, with the hires fix of ``values``.

    Raises ``InvalidRequest`` where the picture carries no parameters.
    """
    if not parse(infotext).parameters:
        raise InvalidRequest("This picture carries no generation parameters.", "Only pictures with them can be redone.")
    hires_names = {field.name for field in hires.FIELDS if not field.name.startswith("refiner")}
    kept = {name: value for name, value in values.items() if name in hires_names}
    return {**values, **paste(form, infotext, app).values, **kept, "enable_hr": True, "batch_count": 1, "batch_size": 1,
            "styles": ()}


def _wire_paste(controls: Controls, app: Any) -> None:
    """Read generation parameters from the prompt, or take those of the last picture where it holds none."""
    def fill(prompt: str, last: str, request: gr.Request) -> Any:
        owner = owner_of(request.request)
        pasted = paste(controls.form, prompt if "Steps: " in prompt else last or prompt, app)
        app.forms.merge(owner, TAB, to_storage(pasted.values))
        return controls.updates(pasted.values) | {told: json.dumps({"pasted": pasted.problems})}

    told = gr.Textbox(visible="hidden", elem_id="txt2img_pasted")
    last = gr.Textbox(visible="hidden", elem_id="txt2img_last_infotext")
    click = quietly(controls.buttons["paste"].click, fill, inputs=[controls["prompt"], last],
                    outputs=[*controls.outputs(), told], js="(prompt, _) => [prompt, window.darkroom.infotext()]")
    quietly(click.then, inputs=told, js="answer => window.darkroom.pasted(JSON.parse(answer))")


def _wire_size(controls: Controls, app: Any, store: Callable[..., None]) -> None:
    """One button sets both sides to the size that the chosen model was made for."""
    sides = [controls["width"], controls["height"]]
    click = quietly(controls.buttons["txt2img_res_native_btn"].click, lambda: [chosen(app).size] * 2, outputs=sides)
    quietly(click.then, store, inputs=controls.inputs())


def _wire_scripts(controls: Controls, store: Callable[..., None]) -> None:
    """Buttons that only change other controls do so in the browser; what they changed is then stored."""
    buttons = {
        "txt2img_clear_prompt": (("prompt", "negative_prompt"), "() => ['', '']"),
        "txt2img_res_switch_btn": (("width", "height"), "(width, height) => [height, width]"),
        "txt2img_random_seed": (("seed",), "() => '-1'"),
        "txt2img_reuse_seed": (("seed",), "seed => window.darkroom.seed('seed', seed)"),
        "txt2img_random_subseed": (("subseed",), "() => '-1'"),
        "txt2img_reuse_subseed": (("subseed",), "seed => window.darkroom.seed('subseed', seed)"),
    }
    for elem_id, (names, script) in buttons.items():
        changed = [controls[name] for name in names]
        click = quietly(controls.buttons[elem_id].click, inputs=changed, outputs=changed, js=script)
        quietly(click.then, store, inputs=controls.inputs())
    counted = [controls["prompt"], controls["negative_prompt"]]
    for control in counted:
        quietly(control.change, inputs=counted, js="(prompt, negative) => window.darkroom.count(prompt, negative)")


ENTRY = Tab(TAB, "txt2img", build, wire)
