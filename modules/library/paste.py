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
from modules.core.merge_metadata import PREVIEW
from modules.core.request import Request, check
from modules.core.settings import Settings, check_value, setting_infos
from modules.library.infotext import Infotext
from modules.library.paste_image import ABSENT, KEYS, image_fields

_FIELDS: Mapping[str, str] = MappingProxyType({
    "Steps": "steps", "Sampler": "sampler", "Schedule type": "schedule", "CFG scale": "guidance_scale",
    "Seed": "seed", "Size-1": "width", "Size-2": "height", "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength", "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h", "VAE": "vae", "Tiling": "tiling",
    "Denoising strength": "denoising_strength", "Hires upscale": "hr_scale", "Hires resize-1": "hr_resize_x",
    "Hires resize-2": "hr_resize_y", "Hires steps": "hr_second_pass_steps", "Hires upscaler": "hr_upscaler",
    "Hires checkpoint": "hr_checkpoint", "Hires sampler": "hr_sampler", "Hires schedule type": "hr_schedule",
    "Hires prompt": "hr_prompt", "Hires negative prompt": "hr_negative_prompt",
    "Hires CFG Scale": "hr_guidance_scale", "Refiner": "refiner", "Refiner switch at": "refiner_switch_at",
})
_FIRST_PASS = ("First pass size-1", "First pass size-2")
# Any of them, together with a denoising strength, says that hires fix was on.
_HIRES = ("Hires upscale", "Hires upscaler", "Hires resize-1", _FIRST_PASS[0])
_NAMED_SEPARATELY = ("Model", "Model hash")
_FACES = "Face restoration"
# The suffixes of samplers' names before A1111 1.9 made the schedule a choice of its own.
_SCHEDULES = (
    "Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal",
    "Align Your Steps", "Simple", "Normal", "DDIM", "Beta",
)
# What the absence of a key means: the value of A1111's own default, where that differs from ours.
_ABSENT_SETTINGS: Mapping[str, Any] = MappingProxyType({"randn_source": "GPU"})
_ABSENT_FIELDS: Mapping[str, Any] = MappingProxyType({
    "schedule": "Automatic", "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_w": 0, "seed_resize_from_h": 0,
    "tiling": False, "restore_faces": False, "refiner": "", "enable_hr": False,
})
_ABSENT_HIRES: Mapping[str, Any] = MappingProxyType({
    "hr_resize_x": 0, "hr_resize_y": 0, "hr_second_pass_steps": 0, "hr_upscaler": "Latent", "hr_checkpoint": "",
    "hr_sampler": "", "hr_schedule": "", "hr_prompt": "", "hr_negative_prompt": "", "hr_guidance_scale": 0.0,
})


@dataclass(frozen=True)
class Pasted:
    """What an infotext sets.

    ``fields`` are values of ``Request`` by field, ``settings`` of ``Settings`` by name, all checked. ``extras`` are
    the parameters that are neither, as written (hashes, plugins). ``skipped`` says which values were
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
    versions before 1.6 the old timelines of prompt editing. Hires fix is on where its entries are there.
    """
    skipped: list[str] = []
    prompts = {"prompt": infotext.prompt, "negative_prompt": infotext.negative_prompt}
    fields = _checked(prompts, skipped)
    if not infotext.parameters:
        return Pasted(fields, skipped=tuple(skipped))
    parameters = _with_hires_size(infotext.parameters, skipped)
    written = _with_schedule({_FIELDS[key]: value for key, value in parameters.items() if key in _FIELDS})
    written |= image_fields(parameters)
    typed = _typed_fields(written, skipped)
    if _FACES in parameters:
        typed["restore_faces"] = True
    absent: dict[str, Any] = {**_ABSENT_FIELDS, **ABSENT}
    if "Denoising strength" in parameters and any(key in parameters for key in _HIRES):
        absent |= _ABSENT_HIRES
        typed["enable_hr"] = True  # last, for it is checked together with its fields
    fields |= {**absent, **_model(parameters), **_checked(typed, skipped)}
    by_key = {info.infotext: name for name, info in setting_infos().items() if info.infotext and info.per_picture}
    settings = {**_absent_settings(infotext, by_key), **_settings(parameters, by_key, skipped)}
    known = {PREVIEW, *_FIELDS, *KEYS, *_FIRST_PASS, *_NAMED_SEPARATELY, *by_key}
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


def old_first_pass_size(width: int, height: int) -> tuple[int, int]:
    """Return the first pass that A1111's hires fix of 2022 chose for a picture: about 512 x 512 pixels in its shape.

    Sides are the next multiples of 64 (its ``old_hires_fix_first_pass_dimensions``).
    """
    scale = math.sqrt(512 * 512 / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def _with_hires_size(parameters: Mapping[str, str], skipped: list[str]) -> Mapping[str, str]:
    """Return ``parameters`` in today's terms: where the first pass has a size of its own, ``Size`` was the result's.

    A first pass of 0 x 0 was chosen by the program.
    """
    keys = (*_FIRST_PASS, "Size-1", "Size-2")
    if not all(key in parameters for key in keys):
        return parameters
    texts = [parameters[key][:9] for key in keys]
    wide, high, width, height = (int(text) if text.isdecimal() else 0 for text in texts)
    if not width or not height:
        skipped.append("First pass size: the size of the picture is missing.")
        return parameters
    if not wide or not high:
        wide, high = old_first_pass_size(width, height)
    return {**parameters, "Size-1": str(wide), "Size-2": str(high), "Hires resize-1": str(width),
            "Hires resize-2": str(height)}


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
    if name.endswith("prompt"):
        return text
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
