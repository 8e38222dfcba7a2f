"""From an infotext to the fields of a request: what pasting a picture's text into the form does."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.request import Request, check
from modules.core.settings import Settings, check_value, setting_infos
from modules.library.infotext import Infotext

_FIELDS: Mapping[str, str] = MappingProxyType({
    "Steps": "steps", "Sampler": "sampler", "Schedule type": "schedule", "CFG scale": "guidance_scale",
    "Seed": "seed", "Size-1": "width", "Size-2": "height", "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength", "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h", "VAE": "vae",
})
_NAMED_SEPARATELY = ("Model", "Model hash")
# The suffixes of samplers' names before A1111 1.9 made the schedule a choice of its own.
_SCHEDULES = (
    "Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal",
    "Align Your Steps", "Simple", "Normal", "DDIM", "Beta",
)
# What the absence of a key means: the value of A1111's own default, where that differs from ours.
_ABSENT_SETTINGS: Mapping[str, Any] = MappingProxyType({"randn_source": "GPU"})
_ABSENT_FIELDS: Mapping[str, Any] = MappingProxyType({
    "schedule": "Automatic", "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_w": 0, "seed_resize_from_h": 0,
})


@dataclass(frozen=True)
class Pasted:
    """What an infotext sets.

    ``fields`` are values of ``Request`` by field, ``settings`` of ``Settings`` by name, all checked. ``extras`` are
    the parameters that are neither, as written (hires fix, hashes, plugins). ``skipped`` says which values were
    nonsense, one sentence each.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def to_request_fields(infotext: Infotext) -> Pasted:
    """Return the fields and settings that make the picture of ``infotext`` again; never raises.

    Without parameters only the prompts are set. With them, a key that is absent means A1111's default: noise of the
    ``GPU``, schedule ``Automatic``, no variation, every per-picture setting at its default, and for pictures of
    versions before 1.6 the old timelines of prompt editing.
    """
    skipped: list[str] = []
    prompts = {"prompt": infotext.prompt, "negative_prompt": infotext.negative_prompt}
    fields = _checked(prompts, skipped)
    parameters = infotext.parameters
    if not parameters:
        return Pasted(fields, skipped=tuple(skipped))
    written = _with_schedule({_FIELDS[key]: value for key, value in parameters.items() if key in _FIELDS})
    fields |= {**_ABSENT_FIELDS, **_model(parameters), **_checked(_typed_fields(written, skipped), skipped)}
    by_key = {info.infotext: name for name, info in setting_infos().items() if info.infotext and info.per_picture}
    settings = {**_absent_settings(infotext, by_key), **_settings(parameters, by_key, skipped)}
    known = {*_FIELDS, *_NAMED_SEPARATELY, *by_key}
    extras = {key: value for key, value in parameters.items() if key not in known}
    return Pasted(fields, settings, extras, tuple(skipped))


def split_sampler(name: str) -> tuple[str, str]:
    """Return sampler and schedule of an old combined name: ``DPM++ 2M Karras`` is ``DPM++ 2M`` with ``Karras``.

    The schedule is empty where the name has none.
    """
    for schedule in sorted(_SCHEDULES, key=len, reverse=True):
        sampler = name.removesuffix(f" {schedule}")
        if sampler not in (name, ""):
            return sampler, schedule
    return name, ""


def _with_schedule(written: dict[str, str]) -> dict[str, str]:
    if "schedule" in written or "sampler" not in written:
        return written
    sampler, schedule = split_sampler(written["sampler"])
    return {**written, "sampler": sampler, **({"schedule": schedule} if schedule else {})}


def _model(parameters: Mapping[str, str]) -> dict[str, str]:
    name, digits = parameters.get("Model", ""), parameters.get("Model hash", "")
    text = f"{name} [{digits}]" if name and digits else name or digits
    return {"model": text} if text else {}


def _typed_fields(written: Mapping[str, str], skipped: list[str]) -> dict[str, Any]:
    typed = {}
    for name, text in written.items():
        try:
            typed[name] = _typed(name, text, Request.__dataclass_fields__[name].default)
        except InvalidRequest as error:
            skipped.append(error.message)
    return typed


def _checked(fields: Mapping[str, Any], skipped: list[str]) -> dict[str, Any]:
    good: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            check(dataclasses.replace(Request(), **good, **{name: value}))
        except InvalidRequest as error:
            skipped.append(str(error))
        else:
            good[name] = value
    return good


def _settings(parameters: Mapping[str, str], by_key: Mapping[str, str], skipped: list[str]) -> dict[str, Any]:
    good = {}
    for key, name in by_key.items():
        if key not in parameters:
            continue
        try:
            default = Settings.__dataclass_fields__[name].default
            good[name] = check_value(name, _typed(key, parameters[key], default))
        except InvalidRequest as error:
            skipped.append(error.message)
    return good


def _absent_settings(infotext: Infotext, by_key: Mapping[str, str]) -> dict[str, Any]:
    defaults = {name: Settings.__dataclass_fields__[name].default for name in by_key.values()}
    old = _is_before_1_6(infotext.parameters.get("Version", "")) and "[" in infotext.prompt
    return {**defaults, **_ABSENT_SETTINGS, "use_old_scheduling": old}


def _is_before_1_6(version: str) -> bool:
    # A1111 writes v1.5.2; forks that count differently begin with a word.
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return match is not None and (int(match[1][:4]), int(match[2][:4])) < (1, 6)


def _typed(name: str, text: str, default: Any) -> Any:
    text = text.strip()
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text[:40])
        if isinstance(default, float):
            return _finite(text)
    except (ValueError, KeyError) as error:
        kind = {bool: "True or False", int: "a whole number", float: "a number"}[type(default)]
        raise InvalidRequest(f"{name}: {text[:60]!r} is not {kind}.") from error
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
