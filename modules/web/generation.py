"""What happens in a tab that makes pictures: its form is kept and shown again, its buttons act."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modules.core.errors import DarkroomError
from modules.core.job import Job
from modules.library.inputs import Inputs
from modules.web import plots, styles
from modules.web.answers import failure_view, owner_of
from modules.web.chosen import chosen
from modules.web.controls import Controls, shown_choices
from modules.web.events import listen, quietly, restoring
from modules.web.form import Form, restored, to_storage
from modules.web.generation_form import LISTED
from modules.web.generation_layout import paste_id
from modules.web.input_routes import known
from modules.web.paste import paste

Store = Callable[..., None]
NUMBER_KINDS = ("text", "seed")


@dataclass(frozen=True)
class Generator:
    """A tab that makes pictures: its name, its form now (``form(app)``), and the job that its values make.

    ``submit(form, values, app, owner)`` gets the values of the controls over those that are stored.
    """

    tab: str
    form: Callable[[Any], Form]
    submit: Callable[[Form, Mapping[str, Any], Any, str], Job]


def wire(generator: Generator, controls: Controls, app: Any, tab: Any, page: Any) -> Store:
    """Connect the tab: every change is stored, the buttons act, the stored form is shown when the tab opens.

    Returns the action that stores the form, for further events.
    """
    name = generator.tab
    store, restore = _store(generator, controls, app), _restore(generator, controls, app)
    everything = controls.inputs()
    keep = gr.Button(visible="hidden", elem_id=f"{name}_keep")
    # Gradio's own event of a text box leaves out what is pasted, cut, deleted or undone: the page presses ``keep``.
    changes = [controls[field.name].input for field in controls.form if field.kind not in NUMBER_KINDS]
    listen([keep.click, *changes], store, inputs=everything, trigger_mode="always_last")
    again = gr.Button(visible="hidden", elem_id=f"{name}_reload")
    restoring([page.load, tab.select, again.click], name, restore, controls.outputs())
    _wire_generate(generator, controls, app)
    _wire_paste(generator, controls, app)
    _wire_scripts(name, controls, store)
    _wire_size(name, controls, app, store)
    styles.wire(controls, app, name, store)
    plots.wire(controls, name, app, store)
    return store


def submission(tab: str) -> gr.Textbox:
    """Render the hidden text in which the page's scripts find the job that was just queued."""
    return gr.Textbox(visible="hidden", elem_id=f"{tab}_submitted")


def tell(event: Any, submitted: Any) -> None:
    """Hand what ``event`` has queued to the page's scripts, which follow it from there."""
    quietly(event.then, inputs=submitted, js="answer => window.darkroom.submitted(JSON.parse(answer))")


def queued(queue: Callable[[], Job]) -> str:
    """Return the job that ``queue`` makes, or why there is none, for the page's scripts."""
    try:
        job = queue()
    except DarkroomError as error:
        return json.dumps(failure_view(error))
    return json.dumps({"id": job.id, "warnings": job.warnings})


def _store(generator: Generator, controls: Controls, app: Any) -> Store:
    # What is stored beside the controls, pictures and masks, stays.
    def store(data: dict[Any, Any], request: gr.Request) -> None:
        app.forms.merge(owner_of(request.request), generator.tab, to_storage(controls.values(data)))
    return store


def _restore(generator: Generator, controls: Controls, app: Any) -> Callable[..., Any]:
    def restore(request: gr.Request) -> Any:
        current = generator.form(app)
        # A form that was never touched starts at the size that the model was made for.
        native = chosen(app).size
        stored = {"width": native, "height": native} | app.forms.load(owner_of(request.request), generator.tab)
        updates = controls.updates(restored(current, stored))
        for field in current:
            if field.name in LISTED:
                updates[controls[field.name]]["choices"] = shown_choices(field)
        return updates
    return restore


def _wire_generate(generator: Generator, controls: Controls, app: Any) -> None:
    """Generate queues a job, once the page's scripts have stored what was painted."""
    def generate(data: dict[Any, Any], request: gr.Request) -> str:
        owner, values = owner_of(request.request), controls.values(data)

        def queue() -> Job:
            stored = app.forms.merge(owner, generator.tab, to_storage(values))
            return generator.submit(controls.form, {**stored, **values}, app, owner)
        return queued(queue)

    name = generator.tab
    controls.places["submitted"] = submitted = submission(name)
    send = gr.Button(visible="hidden", elem_id=f"{name}_send")
    quietly(controls.buttons[f"{name}_generate"].click, js=f"() => window.darkroom.generate('{name}')",
            trigger_mode="multiple")
    tell(quietly(send.click, generate, inputs=controls.inputs(), outputs=submitted, trigger_mode="multiple"), submitted)


def _wire_paste(generator: Generator, controls: Controls, app: Any) -> None:
    """Read generation parameters from the prompt, or take those of the last picture where it holds none."""
    def fill(prompt: str, last: str, request: gr.Request) -> Any:
        owner = owner_of(request.request)
        pasted = paste(controls.form, prompt if "Steps: " in prompt else last or prompt, app)
        stored = app.forms.merge(owner, name, to_storage(pasted.values))
        answer = {"tab": name, "pasted": pasted.problems, "inputs": known(Inputs(app.folders.inputs), stored)}
        return controls.updates(pasted.values) | {told: json.dumps(answer)}

    name = generator.tab
    told = gr.Textbox(visible="hidden", elem_id=f"{name}_pasted")
    last = gr.Textbox(visible="hidden", elem_id=f"{name}_last_infotext")
    click = quietly(controls.buttons[paste_id(name)].click, fill, inputs=[controls["prompt"], last],
                    outputs=[*controls.outputs(), told], js="(prompt, _) => [prompt, window.darkroom.infotext()]")
    quietly(click.then, inputs=told, js="answer => window.darkroom.pasted(JSON.parse(answer))")


def _wire_size(tab: str, controls: Controls, app: Any, store: Store) -> None:
    """One button sets both sides to the size that the chosen model was made for."""
    sides = [controls["width"], controls["height"]]
    click = quietly(controls.buttons[f"{tab}_res_native_btn"].click, lambda: [chosen(app).size] * 2, outputs=sides)
    quietly(click.then, store, inputs=controls.inputs())


def _wire_scripts(tab: str, controls: Controls, store: Store) -> None:
    """Buttons that only change other controls do so in the browser; what they changed is then stored."""
    buttons = {
        "clear_prompt": (("prompt", "negative_prompt"), "() => ['', '']"),
        "res_switch_btn": (("width", "height"), "(width, height) => [height, width]"),
        "random_seed": (("seed",), "() => '-1'"),
        "reuse_seed": (("seed",), "seed => window.darkroom.seed('seed', seed)"),
        "random_subseed": (("subseed",), "() => '-1'"),
        "reuse_subseed": (("subseed",), "seed => window.darkroom.seed('subseed', seed)"),
    }
    for suffix, (names, script) in buttons.items():
        changed = [controls[name] for name in names]
        click = quietly(controls.buttons[f"{tab}_{suffix}"].click, inputs=changed, outputs=changed, js=script)
        quietly(click.then, store, inputs=controls.inputs())
    counted = [controls["prompt"], controls["negative_prompt"]]
    for control in counted:
        quietly(control.change, inputs=counted,
                js=f"(prompt, negative) => window.darkroom.count('{tab}', prompt, negative)")
