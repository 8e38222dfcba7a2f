"""From the body of ``/sdapi/v1/txt2img`` or ``img2img`` to a request, with everything A1111 accepts there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import InvalidRequest, NotFound
from modules.core.request import Request
from modules.library.infotext import parse
from modules.library.paste import to_request_fields
from modules.web.api import plots
from modules.web.api.begun import SCRIPTS, begun, stored
from modules.web.api.overrides import overridden, override_warnings, usable_overrides
from modules.web.api.sdapi_models import GenerationRequest, Img2ImgRequest, Txt2ImgRequest
from modules.web.form import PLUGIN_SEPARATOR, plugin_fields
from modules.web.paste import models_here, plugin_values

FIELDS = {
    "prompt": "prompt", "negative_prompt": "negative_prompt", "seed": "seed", "subseed": "subseed",
    "subseed_strength": "subseed_strength", "seed_resize_from_h": "seed_resize_from_h",
    "seed_resize_from_w": "seed_resize_from_w", "batch_size": "batch_size", "n_iter": "batch_count",
    "steps": "steps", "cfg_scale": "guidance_scale", "width": "width", "height": "height", "tiling": "tiling",
    "restore_faces": "restore_faces",
    "denoising_strength": "denoising_strength", "enable_hr": "enable_hr", "hr_scale": "hr_scale",
    "hr_resize_x": "hr_resize_x", "hr_resize_y": "hr_resize_y", "hr_upscaler": "hr_upscaler",
    "hr_second_pass_steps": "hr_second_pass_steps", "hr_prompt": "hr_prompt",
    "hr_negative_prompt": "hr_negative_prompt", "hr_cfg": "hr_guidance_scale",
    "refiner_switch_at": "refiner_switch_at",
}
# Names that may also be said in words: these mean those of the first pass, or none.
NAMES = {"hr_checkpoint_name": "hr_checkpoint", "hr_sampler_name": "hr_sampler", "hr_scheduler": "hr_schedule",
         "refiner_checkpoint": "refiner"}
UNNAMED = ("", "none", "use same checkpoint", "use same sampler", "use same scheduler")
SETTINGS = {"eta": ("eta_ddim", "eta_ancestral"), "s_churn": ("s_churn",), "s_tmin": ("s_tmin",),
            "s_tmax": ("s_tmax",), "s_noise": ("s_noise",), "s_min_uncond": ("s_min_uncond",)}
DEFAULT_SAMPLER = "Euler"


@dataclass(frozen=True)
class Asked:
    """A request, the overrides that were applied to its settings, and a sentence for each that was not."""

    request: Request
    overrides: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pasted:
    """What an infotext fills in."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def asked(body: GenerationRequest, app: Any) -> Asked:
    """Return what ``body`` asks for; raises ``InvalidRequest`` naming the field, and ``NotFound`` for a model."""
    refuse_unknown_script(body)
    pasted = pasted_values(body.infotext, app)
    given = body.override_settings or {}
    overrides = {**pasted.settings, **usable_overrides(given), **sampler_settings(body)}
    settings = overridden(app, overrides)
    save = bool(body.save_images)
    values = fields(body, pasted.fields)
    if isinstance(body, Txt2ImgRequest):
        values = first_pass(body, values)
        if body.firstpass_image and values["enable_hr"]:
            (values["firstpass_image"],) = stored((body.firstpass_image,), app)
    elif isinstance(body, Img2ImgRequest):
        values |= begun(body, app, values, pasted.fields)
    if _script(body) == plots.NAME:
        values["grid"] = plots.grid_of(body.script_args or (), values.get("kind", "txt2img"), app)
    request = Request(
        **values, **sampling(body, pasted.fields), styles=tuple(body.styles or ()),
        plugins=merged(pasted.plugins, script_values(body, app.host)), settings=settings,
        save_images=save, save_grid=save,
    )
    return Asked(request, usable_overrides(given), (*pasted.warnings, *override_warnings(given)))


def refuse_unknown_script(body: GenerationRequest) -> None:
    """Raise ``InvalidRequest`` for a script that does not exist here."""
    known = SCRIPTS if isinstance(body, Img2ImgRequest) else {}
    if _script(body) not in ("", "none", plots.NAME, *known):
        raise InvalidRequest(f"script_name: There is no script {str(body.script_name)[:100]!r}.",
                             "GET /sdapi/v1/scripts lists them.")


def _script(body: GenerationRequest) -> str:
    return (body.script_name or "").strip().lower()


def fields(body: GenerationRequest, pasted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's plain fields: what was sent, else what the infotext says, else A1111's defaults.

    Where neither A1111 nor its clients say anything, the default is that of ``Request``.
    """
    given = {name: getattr(body, name) for name in body.model_fields_set if getattr(body, name) is not None}
    known = type(body).model_fields
    found = {ours: given.get(name, pasted.get(ours, known[name].default))
             for name, ours in FIELDS.items() if name in known}
    found |= {ours: pasted.get(ours, "") if name not in given else named(given[name])
              for name, ours in NAMES.items() if name in known}
    return {name: value for name, value in found.items() if value is not None}


def named(text: str) -> str:
    """Return the name in ``text``, empty where it says ``Use same sampler`` or ``None``."""
    return "" if text.strip().lower() in UNNAMED else text


def first_pass(body: Txt2ImgRequest, values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with the size of the first pass, where ``body`` gives it: the size is then the result's.

    Where it gives one side alone, the other is in proportion, in multiples of 8.
    """
    wide, high, width, height = (*_first_pass_sides(body), values["width"], values["height"])
    if not values["enable_hr"] or not (wide or high) or width < 1 or height < 1:
        return values
    wide, high = wide or high * width // height // 8 * 8, high or wide * height // width // 8 * 8
    return values | {"width": wide, "height": high, "hr_resize_x": width, "hr_resize_y": height}


def _first_pass_sides(body: Txt2ImgRequest) -> tuple[int, int]:
    return max(0, body.firstphase_width or 0), max(0, body.firstphase_height or 0)


def sampling(body: GenerationRequest, pasted: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampler and schedule; ``sampler_name`` wins over ``sampler_index``, and both over the infotext."""
    index = body.sampler_index if "sampler_index" in body.model_fields_set else None
    sampler = body.sampler_name or index or pasted.get("sampler") or DEFAULT_SAMPLER
    return {"sampler": sampler, "schedule": body.scheduler or pasted.get("schedule") or "Automatic"}


def sampler_settings(body: GenerationRequest) -> dict[str, float]:
    """Return the settings that fields of the body stand for."""
    return {setting: getattr(body, name) for name, settings in SETTINGS.items() for setting in settings
            if getattr(body, name) is not None}


def pasted_values(infotext: str | None, app: Any) -> Pasted:
    """Return what ``infotext`` says of fields, settings and parameters of plugins."""
    if not infotext:
        return Pasted()
    found = to_request_fields(parse(infotext))
    values, settings = dict(found.fields), dict(found.settings)
    problems = list(found.skipped)
    if "vae" in values:
        settings["sd_vae"] = values.pop("vae")
    if model := values.pop("model", ""):
        try:
            settings["sd_model_checkpoint"] = app.library.find_checkpoint(model).title
        except NotFound:
            problems.append(f"The model {model} of the infotext is not here; the chosen one is used.")
    values, missing = models_here(values, app.library)
    problems.extend(missing)
    return Pasted(values, settings, pasted_plugins(found.extras, app.host), tuple(problems))


def pasted_plugins(extras: Mapping[str, str], host: Any) -> dict[str, dict[str, Any]]:
    """Return the parameters of plugins that an infotext names."""
    plugins = [found.plugin for found in host.found if found.plugin is not None]
    form = tuple(item for plugin in plugins for item in plugin_fields(plugin.id, plugin.Params, ""))
    values: dict[str, dict[str, Any]] = {}
    for name, value in plugin_values(form, extras, host).items():
        plugin_id, _, parameter = name.partition(PLUGIN_SEPARATOR)
        values.setdefault(plugin_id, {})[parameter] = value
    return values


def script_values(body: GenerationRequest, host: Any) -> dict[str, dict[str, Any]]:
    """Return the parameters that ``alwayson_scripts`` give to plugins, by a plugin's id.

    Raises ``InvalidRequest`` for a name that no plugin has.
    """
    plugins = {title.lower(): found.plugin for found in host.found if found.plugin is not None
               for title in (found.plugin.id, found.plugin.name)}
    values = {}
    for title, script in (body.alwayson_scripts or {}).items():
        plugin = plugins.get(title.strip().lower())
        if plugin is None:
            raise InvalidRequest(f"alwayson_scripts: There is no script {title[:100]!r}.",
                                 "GET /sdapi/v1/scripts lists them.")
        values[plugin.id] = script_arguments(title, script, plugin.Params)
    return values


def script_arguments(title: str, script: Any, params: type) -> dict[str, Any]:
    """Return ``{"args": ...}`` by parameter: an object, a list that holds one, or values in order.

    Of a shorter list the others keep their defaults, of a longer one the rest is ignored.
    """
    arguments = script.get("args") if isinstance(script, Mapping) else script
    if isinstance(arguments, list) and len(arguments) == 1 and isinstance(arguments[0], Mapping):
        arguments = arguments[0]
    if arguments is None:
        return {}
    if isinstance(arguments, Mapping):
        return dict(arguments)
    if not isinstance(arguments, list):
        raise InvalidRequest(f"alwayson_scripts.{title}: args is a list or an object.")
    names = [item.name for item in dataclasses.fields(params)]
    return dict(zip(names, arguments, strict=False))


def merged(one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parameters of both; those of ``other`` win."""
    return {name: {**one.get(name, {}), **other.get(name, {})} for name in {**one, **other}}
