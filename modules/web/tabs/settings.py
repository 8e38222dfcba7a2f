"""The settings tab: one control for each setting, by section."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import gradio as gr

from modules.core.errors import DarkroomError
from modules.core.settings import setting_infos
from modules.sampling.samplers import SAMPLERS
from modules.web import quicksettings
from modules.web.answers import failure_view
from modules.web.controls import Controls, markup
from modules.web.events import quietly
from modules.web.form import Form, setting_fields, to_storage, value_of, with_choices
from modules.web.tabs import Tab

HIDDEN = (*quicksettings.NAMES, "disabled_extensions")


def form() -> Form:
    """Return a field for each setting that is shown here."""
    samplers = [item.name for item in SAMPLERS]
    return tuple(
        with_choices(field, samplers) if field.name == "hide_samplers" else field for field in setting_fields(HIDDEN)
    )


def build(app: Any) -> Controls:
    """Lay the tab out; return its controls."""
    fields, infos = form(), setting_infos()
    controls = Controls(fields)
    with gr.Row(elem_id="settings_bar"):
        controls.button("Apply settings", "settings_submit", variant="primary", scale=0, min_width=160)
        markup('<input id="settings_search" type="search" placeholder="Search settings" '
               'aria-label="Search settings">', elem_id="settings_search_box")
    sections = {name: list(group) for name, group in groupby(
        sorted(fields, key=lambda field: _place(infos[field.name].section)),
        key=lambda field: infos[field.name].section)}
    with gr.Row(elem_id="settings_body", equal_height=False):
        markup(_contents(sections), elem_id="settings_contents")
        with gr.Column(elem_id="settings_sections", scale=5):
            for section, own in sections.items():
                with gr.Column(elem_id=_anchor(section), elem_classes=["settings-section"]):
                    markup(f"<h2>{section}</h2>")
                    for field in own:
                        controls.show(field.name)
    return controls


def wire(controls: Controls, app: Any, tab: Any, page: Any) -> None:
    """Connect the tab: it shows the settings in force when it opens, and Apply saves what differs."""
    def show() -> Any:
        settings = app.settings.get()
        return controls.updates({field.name: getattr(settings, field.name) for field in controls.form})

    def apply(data: dict[Any, Any]) -> str:
        try:
            changed = changes(controls.form, controls.values(data), app.settings.get())
            if changed:
                app.settings.update(to_storage(changed))
        except DarkroomError as error:
            return json.dumps(failure_view(error))
        return json.dumps({"saved": [setting_infos()[name].label for name in changed]})

    told = gr.Textbox(visible="hidden", elem_id="settings_answer")
    quietly(tab.select, show, outputs=controls.outputs())
    click = quietly(controls.buttons["settings_submit"].click, apply, inputs=controls.inputs(), outputs=told)
    quietly(click.then, inputs=told, js="answer => window.darkroom.answered(JSON.parse(answer))")


def changes(fields: Form, values: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """Return the values that differ from ``settings``; raises ``InvalidRequest`` naming the setting."""
    typed = {field.name: value_of(field, values.get(field.name)) for field in fields if field.name in values}
    return {name: value for name, value in typed.items() if value != getattr(settings, name)}


def _place(section: str) -> int:
    return list(dict.fromkeys(info.section for info in setting_infos().values())).index(section)


def _anchor(section: str) -> str:
    return "settings_" + "".join(letter if letter.isalnum() else "_" for letter in section.lower())


def _contents(sections: Mapping[str, Any]) -> str:
    links = "".join(f'<a href="#{_anchor(section)}">{section}</a>' for section in sections)
    return f'<nav aria-label="Sections">{links}</nav>'


ENTRY = Tab("settings", "Settings", build, wire)
