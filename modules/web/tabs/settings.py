"""The settings tab: one control for each setting, by section."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import gradio as gr

from modules.core.errors import DarkroomError
from modules.core.settings import Settings, setting_infos
from modules.library.upscalers import ENABLED_MODELS
from modules.plugin import Plugin
from modules.plugin.params import param_infos, read_params, stored_settings
from modules.web import quicksettings
from modules.web.answers import failure_view
from modules.web.controls import Controls, markup
from modules.web.events import quietly, restoring
from modules.web.form import (
    PLUGIN_SEPARATOR,
    Form,
    plugin_fields,
    setting_fields,
    to_storage,
    value_of,
    with_choices,
)
from modules.web.tabs import Tab

HIDDEN = (*quicksettings.NAMES, "disabled_extensions", "extension_settings")


def form(app: Any) -> Form:
    """Return a field for each setting that is shown here, with the samplers and upscalers that there are now."""
    choices = listed(app)
    return tuple(with_choices(field, choices[field.name]) if field.name in choices else field
                 for field in setting_fields(HIDDEN))


def listed(app: Any) -> dict[str, Sequence[str]]:
    """Return the choices of settings that extensions and model files add to, by the setting's name."""
    upscalers = app.upscalers()
    families = {name: [one for one in upscalers if one.startswith(start)]
                for name, start in ENABLED_MODELS.items()}
    return {"hide_samplers": [one.name for one in app.host.samplers()], "upscaler_for_img2img": upscalers, **families}


def extension_fields(plugins: Sequence[Plugin]) -> dict[str, Form]:
    """Return the fields of the settings that extensions have, by the extension's name."""
    found = {plugin.name: plugin_fields(plugin.id, plugin.Settings, "setting") for plugin in plugins}
    return {name: fields for name, fields in found.items() if fields}


def build(app: Any) -> Controls:
    """Lay the tab out; return its controls."""
    fields, infos, added = form(app), setting_infos(), extension_fields(app.host.plugins())
    controls = Controls((*fields, *(field for own in added.values() for field in own)))
    with gr.Row(elem_id="settings_bar"):
        controls.button("Apply settings", "settings_submit", variant="primary", scale=0, min_width=160)
        markup('<input id="settings_search" type="search" placeholder="Search settings" '
               'aria-label="Search settings">', elem_id="settings_search_box")
    sections = {name: list(group) for name, group in groupby(
        sorted(fields, key=lambda field: _place(infos[field.name].section)),
        key=lambda field: infos[field.name].section)}
    sections |= {name: list(own) for name, own in added.items()}
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
        updates = controls.updates(in_force(controls.form, app.settings.get(), app.host.plugins()))
        for name, choices in listed(app).items():
            updates[controls[name]]["choices"] = [(one, one) for one in choices]
        return updates

    def apply(data: dict[Any, Any]) -> str:
        try:
            settings = app.settings.get()
            values = in_force(controls.form, settings, app.host.plugins())
            changed = changes(controls.form, controls.values(data), values)
            if changed:
                app.settings.update(storage(changed, settings.extension_settings, app.host.plugins()))
        except DarkroomError as error:
            return json.dumps(failure_view(error))
        return json.dumps({"saved": [field.label for field in controls.form if field.name in changed]})

    told = gr.Textbox(visible="hidden", elem_id="settings_answer")
    restoring([tab.select], "settings", show, controls.outputs())
    click = quietly(controls.buttons["settings_submit"].click, apply, inputs=controls.inputs(), outputs=told)
    quietly(click.then, inputs=told, js="answer => window.darkroom.answered(JSON.parse(answer))")


def in_force(fields: Form, settings: Settings, plugins: Sequence[Plugin]) -> dict[str, Any]:
    """Return the value of each field."""
    own = {plugin.id: stored_settings(settings.extension_settings, plugin.id, plugin.Settings) for plugin in plugins}
    parts = {field.name: field.name.partition(PLUGIN_SEPARATOR) for field in fields}
    return {name: getattr(own[owner], leaf) if separator else getattr(settings, name)
            for name, (owner, separator, leaf) in parts.items()}


def storage(changed: Mapping[str, Any], stored: str, plugins: Sequence[Plugin]) -> dict[str, Any]:
    """Return ``changed`` as the settings store takes it, those of extensions together in one value.

    ``stored`` is that value in force. Raises ``InvalidRequest`` for a value that an extension does not take.
    """
    plain = {name: value for name, value in changed.items() if PLUGIN_SEPARATOR not in name}
    if len(plain) == len(changed):
        return to_storage(plain)
    # Those of extensions that are turned off are kept as they are.
    every = {**_read(stored), **{plugin.id: dataclasses.asdict(stored_settings(stored, plugin.id, plugin.Settings))
                                 for plugin in plugins if param_infos(plugin.Settings)}}
    for name, value in to_storage({name: changed[name] for name in changed if name not in plain}).items():
        owner, _, leaf = name.partition(PLUGIN_SEPARATOR)
        every[owner] = {**every[owner], leaf: value}
    for plugin in plugins:
        read_params(plugin.Settings, every.get(plugin.id, {}) if param_infos(plugin.Settings) else {}, plugin.id)
    return {**to_storage(plain), "extension_settings": json.dumps(every)}


def _read(stored: str) -> dict[str, Any]:
    try:
        found = json.loads(stored)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def changes(fields: Form, values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from those in force; raises ``InvalidRequest`` naming the setting."""
    typed = {field.name: value_of(field, values.get(field.name)) for field in fields if field.name in values}
    return {name: value for name, value in typed.items() if value != known[name]}


def _place(section: str) -> int:
    return list(dict.fromkeys(info.section for info in setting_infos().values())).index(section)


def _anchor(section: str) -> str:
    return "settings_" + "".join(letter if letter.isalnum() else "_" for letter in section.lower())


def _contents(sections: Mapping[str, Any]) -> str:
    links = "".join(f'<a href="#{_anchor(section)}">{section}</a>' for section in sections)
    return f'<nav aria-label="Sections">{links}</nav>'


ENTRY = Tab("settings", "Settings", build, wire)
