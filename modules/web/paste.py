"""From a picture's infotext to the values of a form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import InvalidRequest, NotFound
from modules.library.infotext import parse
from modules.library.inputs import Inputs
from modules.library.paste import to_request_fields
from modules.plugin.params import param_infos
from modules.web import plot_form
from modules.web.form import OVERRIDES, PLUGIN_SEPARATOR, Form, value_of, write_overrides, written
from modules.web.image_fields import recalled


@dataclass(frozen=True)
class Pasted:
    """Values by field name, and a sentence for each entry that could not be used."""

    values: Mapping[str, Any]
    problems: tuple[str, ...] = ()


def paste(form: Form, text: str, app: Any, *, sent: bool = False) -> Pasted:
    """Return the values that make the picture of infotext ``text`` again; text without parameters is a prompt.

    Settings that differ from those in force become overrides, and so does another model, if it is here. ``sent``
    from another tab, seed and size stay as they are where the settings say so. The pictures that a job of img2img
    began from come back in its form, where they are still stored.
    """
    found = to_request_fields(parse(text))
    fields, settings = dict(found.fields), app.settings.get()
    if sent:
        for name in _kept(settings):
            fields.pop(name, None)
    model, problems = _model(str(fields.pop("model", "")), app)
    fields, lost = models_here(fields, app.library)
    overrides = {name: value for name, value in found.settings.items() if value != getattr(settings, name)}
    vae, missing = _vae(str(fields.pop("vae", "")), app)
    if vae:
        overrides["sd_vae"] = vae
    values = written(form, fields, {})
    if found.settings:
        values[OVERRIDES] = write_overrides(overrides, model)
    names = {item.name for item in form}
    if plot_form.GATE in names:
        plotted, unknown = plot_form.recalled(found.extras, app.axes("img2img" if "mode" in names else "txt2img"))
        values, problems = values | plotted, (*problems, *unknown)
    if "mode" in names:
        values |= recalled(found.extras, Inputs(app.folders.inputs))
    return Pasted(values | plugin_values(form, found.extras, app.host), (*found.skipped, *problems, *lost, *missing))


def plugin_values(form: Form, extras: Mapping[str, str], host: Any) -> dict[str, Any]:
    """Return the values of plugin parameters that ``extras`` name by their infotext keys; the others' defaults."""
    fields = {field.name: field for field in form}
    values: dict[str, Any] = {}
    for plugin in (found.plugin for found in host.found if found.plugin is not None):
        for name, info in param_infos(plugin.Params).items():
            field = fields.get(f"{plugin.id}{PLUGIN_SEPARATOR}{name}")
            if field is not None and info.infotext:
                values[field.name] = _from_text(field, extras.get(info.infotext))
    return values


def models_here(fields: Mapping[str, Any], library: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return ``fields`` with the further models (hires fix's and the refiner's) by name, and what to say.

    A model that is not on disk is left out.
    """
    found, problems = dict(fields), []
    for name, without in (("hr_checkpoint", "hires fix uses the first pass's"), ("refiner", "there is no refiner")):
        text = found.get(name)
        if not text:
            continue
        try:
            found[name] = library.find_checkpoint(text).name
        except NotFound:
            found[name] = ""
            problems.append(f"The model {text} is not here; {without}.")
    return found, tuple(problems)


def _kept(settings: Any) -> tuple[str, ...]:
    seeds = () if settings.send_seed else ("seed", "subseed", "subseed_strength")
    return seeds if settings.send_size else (*seeds, "width", "height")


def _model(text: str, app: Any) -> tuple[str, tuple[str, ...]]:
    """Return the model to override the chosen one with, empty for none, and what to say."""
    if not text or not app.library.checkpoints():
        return "", ()
    try:
        wanted = app.library.find_checkpoint(text)
        chosen = app.settings.get().sd_model_checkpoint
        current = app.library.find_checkpoint(chosen) if chosen else app.library.checkpoints()[0]
    except NotFound:
        return "", (f"The model {text} is not here; the chosen one is used.",)
    return ("" if wanted.path == current.path else wanted.title), ()


def _vae(text: str, app: Any) -> tuple[str, tuple[str, ...]]:
    """Return the VAE to override the chosen one with, empty for none, and what to say."""
    if text in ("", app.settings.get().sd_vae):
        return "", ()
    try:
        app.library.find_vae(text)
    except NotFound:
        return "", (f"The VAE {text} is not here; the chosen one is used.",)
    return text, ()


def _from_text(field: Any, text: str | None) -> Any:
    if isinstance(field.default, bool) and text is not None:
        return text == "True"
    try:
        return value_of(field, text)
    except InvalidRequest:
        return field.default
