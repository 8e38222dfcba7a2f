"""Forms whose button queues work on model files: each a section of the Checkpoint Merger tab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modules.library.files import LORA
from modules.web.answers import owner_of
from modules.web.controls import Controls, shown_choices
from modules.web.events import listen, quietly, restoring
from modules.web.form import Form, restored, to_storage, value_of, with_choices
from modules.web.generation import queued

ADD_TAG = """(name, tags) => name ? ["", [tags.trim(), `<lora:${name}:1>`].filter(Boolean).join("\\n")] : ["", tags]"""


@dataclass(frozen=True)
class WorkForm:
    """A section: ``id`` names where its form is stored and begins its elements' ids, ``label`` is on its tab.

    ``form(app)`` are its fields with the models that are on disk now; ``work`` is the dataclass that they fill.
    ``layout`` shows the controls; ``button`` is what its button is called.
    """

    id: str
    label: str
    button: str
    form: Callable[[Any], Form]
    work: type
    layout: Callable[[Controls], None]


def listed(fields: Form, choices: Mapping[str, list[str]]) -> Form:
    """Return ``fields``, those that ``choices`` name with these."""
    return tuple(with_choices(field, choices[field.name]) if field.name in choices else field for field in fields)


def lora_names(app: Any) -> list[str]:
    """Return what tags call the LoRAs on disk."""
    return list(dict.fromkeys(one.stem for one in app.library.files(LORA)))


def show_loras(controls: Controls, elem_id: str) -> None:
    """Lay out the text of tags and the list that writes into it."""
    controls.places["add_lora"] = gr.Dropdown([], label="Add a LoRA", elem_id=elem_id, value="",
                                              allow_custom_value=True)
    controls.show("loras")


def values_from(form: Form, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the fields of ``form`` in their types; raises ``InvalidRequest`` naming the field."""
    return {field.name: value_of(field, values.get(field.name)) for field in form}


def build(section: WorkForm, app: Any) -> Controls:
    """Lay a section out; return its controls."""
    controls = Controls(section.form(app))
    section.layout(controls)
    act(controls, section.button, f"{section.id}_run")
    return controls


def act(controls: Controls, label: str, elem_id: str) -> None:
    """Render the button that queues; it stays in sight however long the form is."""
    with gr.Row(elem_classes=["act-bar"]):
        controls.button(label, elem_id, variant="primary")


def wire(section: WorkForm, controls: Controls, app: Any, tab: str, opened: list[Any]) -> None:
    """Connect a section: its form is kept, and shown when one of the events ``opened`` of the ``tab`` happens."""
    told = gr.Textbox(visible="hidden", elem_id=f"{section.id}_submitted")

    def keep(data: dict[Any, Any], request: gr.Request) -> None:
        app.forms.save(owner_of(request.request), section.id, to_storage(controls.values(data)))

    def show(request: gr.Request) -> Any:
        current = section.form(app)
        updates = controls.updates(restored(current, app.forms.load(owner_of(request.request), section.id)))
        for field in current:
            if field.choices and field.kind == "choice" and not field.strict:
                updates[controls[field.name]]["choices"] = shown_choices(field)
        return updates | added(controls, app)

    def submit(data: dict[Any, Any], request: gr.Request) -> str:
        keep(data, request)
        return queued(lambda: app.submit_work(section.work(**values_from(section.form(app), controls.values(data))),
                                              owner=owner_of(request.request)))

    restoring(opened, tab, show, [*controls.outputs(), *added_outputs(controls)])
    keeping(controls, keep)
    tell(quietly(controls.buttons[f"{section.id}_run"].click, submit, inputs=controls.inputs(), outputs=told), told)


def added(controls: Controls, app: Any) -> dict[Any, Any]:
    """Return what lists the LoRAs that are on disk now, where the form has a list of them."""
    return {place: gr.update(choices=lora_names(app)) for place in added_outputs(controls)}


def added_outputs(controls: Controls) -> list[Any]:
    """Return the list of LoRAs of a form, if it has one."""
    return [controls.places["add_lora"]] if "add_lora" in controls.places else []


def keeping(controls: Controls, keep: Callable[..., None]) -> None:
    """Store the form whenever something in it changes; a LoRA that is chosen is added to the tags."""
    listen([controls[field.name].blur if field.kind == "text" else controls[field.name].input
            for field in controls.form], keep, inputs=controls.inputs(), trigger_mode="always_last")
    for place in added_outputs(controls):
        chosen = quietly(place.input, inputs=[place, controls["loras"]], outputs=[place, controls["loras"]], js=ADD_TAG)
        quietly(chosen.then, keep, inputs=controls.inputs())


def tell(event: Any, told: Any) -> None:
    """Hand what ``event`` has queued, or why not, to the page's scripts."""
    quietly(event.then, inputs=told, js="answer => window.darkroom.merging(JSON.parse(answer || '{}'))")
