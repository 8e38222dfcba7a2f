"""The axes of the X/Y/Z plot: A1111's under its labels, then every other setting of a picture."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.grid import READERS, TITLE, written
from modules.core.request import MAX_PROMPT_CHARACTERS, Request
from modules.core.settings import Settings, setting_infos, with_values

TXT2IMG, IMG2IMG = "txt2img", "img2img"
CHECKPOINTS, VAES, SAMPLERS, SCHEDULES, STYLES, UPSCALERS, HIRES_UPSCALERS = (
    "checkpoints", "vaes", "samplers", "schedules", "styles", "upscalers", "hires_upscalers")
LISTS = (CHECKPOINTS, VAES, SAMPLERS, SCHEDULES, STYLES, UPSCALERS, HIRES_UPSCALERS)
BOOLEANS = ("False", "True")
# How values of a parameter are read, by its type.
KINDS: Mapping[type, str] = MappingProxyType({bool: "bool", int: "int", float: "float", str: "str"})
MULTIPLIER = "Merge multiplier"
# Fields that count only in hires fix, in txt2img.
_HIRES_ALONE = ("hr_", "denoising_strength")


def titled(label: str, value: str) -> str:
    """Return what most axes write beside the grid."""
    return f"{label}: {value}"


def alone(label: str, value: str) -> str:
    """Return the value: what it means can be seen."""
    return value


def file_name(label: str, value: str) -> str:
    """Return the last part of a path."""
    return re.split(r"[/\\]", value)[-1]


@dataclass(frozen=True)
class Axis:
    """Something that can vary: ``change(request, value)`` returns the request with one of its values.

    ``kind`` is how values are read (``modules.core.grid.READERS``): ``int``, ``float``, ``str``, ``bool``,
    ``seed`` (-1 is a random one), ``replacement`` (pairs of texts: what is searched for, what takes its place) or
    ``order`` (tuples of texts). ``cost`` from 0 to 1 orders the work: what costs most to change changes least often.
    ``tabs`` are where the axis is offered. ``choices`` are the values that there are, or the name of a list that is
    filled in (``checkpoints``, ``vaes``, ``samplers``, ``schedules``, ``styles``, ``upscalers`` of pixels,
    ``hires_upscalers``, those of latents among them); empty for any.
    ``legend(label, value)`` is what stands beside the grid.
    """

    label: str
    kind: str
    change: Callable[[Request, Any], Request]
    cost: float = 0.0
    tabs: tuple[str, ...] = (TXT2IMG, IMG2IMG)
    choices: tuple[str, ...] | str = ()
    legend: Callable[[str, str], str] = titled


def kind_of(default: Any) -> str:
    """Return the kind of an axis whose values are of the type of ``default``; raises ``KeyError`` for no such kind."""
    return KINDS[type(default)]


def field_axis(label: str, *names: str, **options: Any) -> Axis:
    """Return the axis of a field of ``Request``, or of several that are always the same."""
    def change(request: Request, value: Any) -> Request:
        if request.kind == TXT2IMG and not request.enable_hr and names[0].startswith(_HIRES_ALONE):
            raise InvalidRequest(f"{label}: hires fix is off, so nothing would vary.",
                                 "Turn it on, or choose another axis.")
        return dataclasses.replace(request, **dict.fromkeys(names, value))
    kind = options.pop("kind", "") or kind_of(getattr(Request(), names[0]))
    return Axis(label, kind, change, **_with_booleans(kind, options))


def setting_axis(label: str, *names: str, **options: Any) -> Axis:
    """Return the axis of a setting, or of several that are always the same."""
    def change(request: Request, value: Any) -> Request:
        try:
            settings = with_values(request.settings, dict.fromkeys(names, value))
        except InvalidRequest as error:
            raise InvalidRequest(f"{label}: {error.message}", error.hint) from None
        return dataclasses.replace(request, settings=settings)
    info = setting_infos()[names[0]]
    kind = kind_of(Settings.__dataclass_fields__[names[0]].default)
    return Axis(label, kind, change, **_with_booleans(kind, {"choices": info.choices, **options}))


def _with_booleans(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "choices": BOOLEANS} if kind == "bool" else options


def replace_text(request: Request, value: tuple[str, str]) -> Request:
    """Return ``request`` with a text of its prompts replaced; raises ``InvalidRequest`` where none holds it."""
    searched, replacement = value
    names = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
    prompts: dict[str, Any] = {name: getattr(request, name) for name in names}
    if not any(searched in prompt for prompt in prompts.values()):
        raise InvalidRequest(f"Prompt S/R did not find {searched[:100]!r} in prompt or negative prompt.",
                             "The first value is what is searched for.")
    for prompt in prompts.values():  # before it is made: a thousand places and a long text are a thousand long texts
        length = len(prompt) + prompt.count(searched) * (len(replacement) - len(searched))
        if length > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(f"Prompt S/R would make a prompt of {length:,} characters.",
                                 f"At most {MAX_PROMPT_CHARACTERS:,} are allowed.")
    return dataclasses.replace(
        request, **{name: prompt.replace(searched, replacement) for name, prompt in prompts.items()})


def reorder(request: Request, parts: Sequence[str]) -> Request:
    """Return ``request`` with ``parts`` of its prompt in this order, each at the place of one of them."""
    missing = next((part for part in parts if part not in request.prompt), None)
    if missing is not None:
        raise InvalidRequest(f"Prompt order did not find {missing[:100]!r} in the prompt.")
    # The longest comes first, so that "red cat" is not taken for "red".
    pattern = "|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True))
    following = iter(parts)
    prompt = re.sub(pattern, lambda found: next(following, found[0]), request.prompt)
    return dataclasses.replace(request, prompt=prompt)


def add_styles(request: Request, names: str) -> Request:
    """Return ``request`` with further styles; several are separated by commas."""
    return dataclasses.replace(request, styles=(*request.styles, *(name.strip() for name in names.split(","))))


def merge_axis(label: str, name: str, blocks: str) -> Axis:
    """Return the axis of a number of the merge that is tried out; the block weights ``blocks`` take its place."""
    def change(request: Request, value: float) -> Request:
        if request.merge is None or getattr(request.merge, blocks).strip():
            raise InvalidRequest(f"{label}: block weights take its place.", "Leave them empty to vary it.")
        changes: dict[str, Any] = {name: value}
        return dataclasses.replace(request, merge=dataclasses.replace(request.merge, **changes))
    return Axis(label, "float", change, cost=0.8)


def resize(request: Request, size: str) -> Request:
    """Return ``request`` at a size such as ``512x768``; raises ``InvalidRequest``."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[x×]\s*(\d{1,6})\s*", size)
    if found is None:
        raise InvalidRequest(f"Size: {size[:60]!r} is no size.", "Write it like 512x768.")
    return dataclasses.replace(request, width=int(found[1]), height=int(found[2]))


def restore_faces(request: Request, restorer: str) -> Request:
    """Return ``request`` with faces restored by CodeFormer, GFPGAN or (True) the setting's, or not at all (None)."""
    chosen = {name.lower(): name for name in setting_infos()["face_restoration_model"].choices}
    answer = restorer.strip().lower()
    if answer in chosen:
        settings = with_values(request.settings, {"face_restoration_model": chosen[answer]})
        return dataclasses.replace(request, restore_faces=True, settings=settings)
    if answer not in ("true", "yes", "y", "1", "false", "no", "n", "0", "none"):
        raise InvalidRequest(f"Face restore: {restorer[:60]!r} is no face restorer.",
                             f"Use {', '.join(chosen.values())}, True or None.")
    return dataclasses.replace(request, restore_faces=answer in ("true", "yes", "y", "1"))


_A1111 = (
    field_axis("Seed", "seed", kind="seed"),
    field_axis("Var. seed", "subseed", kind="seed"),
    field_axis("Var. strength", "subseed_strength"),
    field_axis("Steps", "steps"),
    field_axis("Hires steps", "hr_second_pass_steps", tabs=(TXT2IMG,)),
    field_axis("CFG Scale", "guidance_scale"),
    field_axis("Image CFG Scale", "image_cfg_scale", tabs=(IMG2IMG,)),
    Axis("Prompt S/R", "replacement", replace_text, legend=alone),
    Axis("Prompt order", "order", reorder, legend=alone),
    field_axis("Sampler", "sampler", choices=SAMPLERS, legend=alone),
    field_axis("Hires sampler", "hr_sampler", choices=SAMPLERS, tabs=(TXT2IMG,), legend=alone),
    field_axis("Checkpoint name", "model", choices=CHECKPOINTS, cost=1.0, legend=file_name),
    setting_axis("Negative Guidance minimum sigma", "s_min_uncond"),
    setting_axis("Sigma Churn", "s_churn"),
    setting_axis("Sigma min", "s_tmin"),
    setting_axis("Sigma max", "s_tmax"),
    setting_axis("Sigma noise", "s_noise"),
    field_axis("Schedule type", "schedule", choices=SCHEDULES),
    setting_axis("Schedule min sigma", "sigma_min"),
    setting_axis("Schedule max sigma", "sigma_max"),
    setting_axis("Schedule rho", "rho"),
    setting_axis("Beta schedule alpha", "beta_dist_alpha"),
    setting_axis("Beta schedule beta", "beta_dist_beta"),
    setting_axis("Eta", "eta_ancestral", "eta_ddim"),
    setting_axis("Clip skip", "CLIP_stop_at_last_layers", cost=0.1),
    field_axis("Denoising", "denoising_strength"),
    field_axis("Initial noise multiplier", "initial_noise_multiplier"),
    setting_axis("Extra noise", "img2img_extra_noise"),
    field_axis("Hires upscaler", "hr_upscaler", choices=HIRES_UPSCALERS, tabs=(TXT2IMG,)),
    setting_axis("Cond. Image Mask Weight", "inpainting_mask_weight", tabs=(IMG2IMG,)),
    field_axis("VAE", "vae", choices=VAES, cost=0.7),
    Axis("Styles", "str", add_styles, choices=STYLES),
    setting_axis("UniPC Order", "uni_pc_order", cost=0.5),
    Axis("Face restore", "str", restore_faces, choices=("CodeFormer", "GFPGAN", "None")),
    setting_axis("Always discard next-to-last sigma", "always_discard_next_to_last_sigma"),
    setting_axis("SGM noise multiplier", "sgm_noise_multiplier"),
    field_axis("Refiner checkpoint", "refiner", choices=CHECKPOINTS, cost=1.0, legend=file_name),
    field_axis("Refiner switch at", "refiner_switch_at"),
    setting_axis("RNG source", "randn_source"),
    setting_axis("FP8 mode", "fp8_storage", cost=0.9),
    Axis("Size", "str", resize),
)
_FURTHER = (
    field_axis("Width", "width"),
    field_axis("Height", "height"),
    field_axis("Hires upscale", "hr_scale", tabs=(TXT2IMG,)),
    field_axis("Hires CFG Scale", "hr_guidance_scale", tabs=(TXT2IMG,)),
    field_axis("Hires schedule type", "hr_schedule", choices=SCHEDULES, tabs=(TXT2IMG,)),
    field_axis("Hires checkpoint", "hr_checkpoint", choices=CHECKPOINTS, cost=1.0, tabs=(TXT2IMG,), legend=file_name),
    field_axis("Mask blur", "mask_blur_x", "mask_blur_y", tabs=(IMG2IMG,)),
    field_axis("Only masked padding, pixels", "inpaint_full_res_padding", tabs=(IMG2IMG,)),
    field_axis("Tiling", "tiling"),
)
# Settings that an axis above has under another label, or that are a field of the request.
_COVERED = (
    "s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise", "sigma_min", "sigma_max", "rho", "beta_dist_alpha",
    "beta_dist_beta", "eta_ancestral", "CLIP_stop_at_last_layers", "img2img_extra_noise", "inpainting_mask_weight",
    "uni_pc_order", "always_discard_next_to_last_sigma", "sgm_noise_multiplier", "randn_source", "fp8_storage",
    "sd_model_checkpoint", "sd_vae", "face_restoration_model",
)
# Offered to requests that try a merge out.
MERGE_AXES = (merge_axis(MULTIPLIER, "alpha", "block_alpha"), merge_axis("Merge beta", "beta", "block_beta"))
AXES: tuple[Axis, ...] = (
    *_A1111, *_FURTHER,
    *(setting_axis(f"[Setting] {info.label}", name) for name, info in setting_infos().items()
      if info.per_picture and name not in _COVERED),
)


def axes_in(tab: str, axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Return the axes that are offered in ``tab``."""
    return tuple(axis for axis in axes if tab in axis.tabs)


def find_axis(label: str, axes: Iterable[Axis]) -> Axis:
    """Return the axis called ``label``, in any case; raises ``InvalidRequest`` with near names."""
    known = {axis.label.lower(): axis for axis in axes}
    found = known.get(label.strip().lower())
    if found is None:
        near = difflib.get_close_matches(label.strip().lower(), known, 3, 0.5)
        hint = f"Did you mean {' or '.join(known[one].label for one in near)}?" if near else ""
        raise InvalidRequest(f"{TITLE}: There is no axis {label[:100]!r}.", hint)
    return found


def read_values(axis: Axis, text: str) -> tuple[Any, ...]:
    """Return the values of ``axis`` in ``text``; raises ``InvalidRequest`` naming the axis."""
    try:
        values = tuple(READERS[axis.kind](text))
    except InvalidRequest as error:
        raise InvalidRequest(f"{TITLE}: {axis.label}: {error.message}", error.hint) from None
    if not values:
        raise InvalidRequest(f"{TITLE}: {axis.label} has no values.", "Give some, or choose Nothing.")
    return values


def value_text(axis: Axis, value: Any) -> str:
    """Return a value of ``axis`` as it is shown; of a replacement, what takes the place."""
    return written(value[1] if axis.kind == "replacement" else value)
