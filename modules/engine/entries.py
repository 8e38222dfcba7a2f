"""The infotext's entries: what is written beside a picture about how it was made. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules import __version__
from modules.core.merge import Recipe
from modules.core.merge_metadata import PREVIEW, preview_text
from modules.core.plan import Picture, Plan
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine.image_entries import image_entries, source_entries
from modules.imaging.upscalers import UPSCALERS
from modules.library.infotext import OF_DIFFUSION_UPSCALERS, changed_settings, number

# Entries with a place of their own in the infotext, before the settings that merely differ from their defaults.
PLACED = ("Clip skip", "ENSD", "RNG")
OF_THE_REFINER = ("Hires refiner", "Refiner switch by sampling steps")
FACES, OF_CODEFORMER = "Face restoration", "CodeFormer weight"


def parameters(
    request: Request, names: Mapping[str, str], extra: Mapping[str, str], edits: bool = False
) -> dict[str, str]:
    """Return the infotext's entries that all pictures share, in A1111's order.

    ``names`` are those of ``Model``, ``VAE`` (empty for the checkpoint's own), and of ``Hires checkpoint`` and
    ``Refiner`` where they take part. ``Seed`` is put in per picture; hashes are empty until the file is written.
    ``edits`` says that the model edits a picture, whose guidance scale is of interest then.
    """
    settings = request.settings
    entries: dict[str, Any] = {
        "Steps": request.steps,
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": number(request.guidance_scale),
        **({"Image CFG scale": number(request.image_cfg_scale)} if edits else {}),
        "Seed": "",
        **({FACES: settings.face_restoration_model} if request.restore_faces else {}),
        "Size": f"{request.width}x{request.height}",
    }
    entries |= _model_entries(settings, names, request.merge) | _seed_entries(request)
    if request.enable_hr or request.kind == "img2img":
        entries["Denoising strength"] = number(request.denoising_strength)
    changed = changed_settings(settings)
    entries |= {name: changed.pop(name) for name in PLACED if name in changed}
    if request.tiling:
        entries["Tiling"] = True
    entries |= image_entries(request) | _hires_entries(request, names) | _refiner_entries(request, names)
    entries |= {name: value for name, value in changed.items() if _counts(name, request, names)}
    entries |= {name: value for name, value in {**extra, **request.parameters}.items() if name not in entries}
    if settings.add_version_to_infotext:
        entries["Version"] = f"Darkroom {__version__}"
    return {name: str(value) for name, value in entries.items()}


def picture_parameters(plan: Plan, picture: Picture) -> dict[str, str]:
    """Return one picture's infotext entries: the plan's with its own seeds, and what plugins added to it."""
    entries = dict(plan.parameters)
    entries["Seed"] = str(picture.seed)
    if "Variation seed" in entries:
        entries["Variation seed"] = str(picture.subseed)
    version = entries.pop("Version", None)
    entries |= source_entries(plan.request, picture.index)
    entries |= picture.parameters
    return entries | ({"Version": version} if version else {})


def before_hires(plan: Plan) -> dict[str, str]:
    """Return the plan's entries without those of the passes after the first, for what the first one makes."""
    later = {"Denoising strength"} | (set() if len(plan.passes[0].segments) > 1 else {"Refiner", "Refiner switch at"})
    return {name: value for name, value in plan.parameters.items()
            if name not in later and not name.startswith("Hires ")}


def _model_entries(settings: Settings, names: Mapping[str, str], merge: Recipe | None) -> dict[str, str]:
    entries = {}
    if settings.add_model_hash_to_info and merge is None:  # the merge is no file, and model A has not made the picture
        entries["Model hash"] = ""
    if settings.add_model_name_to_info:
        entries["Model"] = names["Model"]
    if merge is not None:
        entries[PREVIEW] = preview_text(merge)
    if names["VAE"] and settings.add_vae_hash_to_info:
        entries["VAE hash"] = ""
    if names["VAE"] and settings.add_vae_name_to_info:
        entries["VAE"] = names["VAE"]
    return entries


def _seed_entries(request: Request) -> dict[str, str]:
    entries: dict[str, str] = {}
    if request.subseed_strength > 0:
        entries |= {"Variation seed": "", "Variation seed strength": number(request.subseed_strength)}
    if request.seed_resize_from_w > 0 and request.seed_resize_from_h > 0:
        entries["Seed resize from"] = f"{request.seed_resize_from_w}x{request.seed_resize_from_h}"
    return entries


def _hires_entries(request: Request, names: Mapping[str, str]) -> dict[str, str]:
    """Return what hires fix does otherwise than the first pass."""
    if not request.enable_hr:
        return {}
    resize = request.hr_resize_x or request.hr_resize_y
    entries = {
        "Hires checkpoint": names.get("Hires checkpoint", ""),
        "Hires sampler": _other(request.hr_sampler, request.sampler),
        "Hires schedule type": _other(request.hr_schedule, request.schedule),
        "Hires prompt": _other(request.hr_prompt, request.prompt),
        "Hires negative prompt": _other(request.hr_negative_prompt, request.negative_prompt),
        "Hires CFG Scale": _other(number(request.hr_guidance_scale or ""), number(request.guidance_scale)),
        "Hires upscale": "" if resize else number(request.hr_scale),
        "Hires resize": f"{request.hr_resize_x}x{request.hr_resize_y}" if resize else "",
        "Hires steps": str(request.hr_second_pass_steps or ""),
        "Hires upscaler": request.hr_upscaler,
    }
    return {name: value for name, value in entries.items() if value}


def _refiner_entries(request: Request, names: Mapping[str, str]) -> dict[str, str]:
    if "Refiner" not in names:
        return {}
    return {"Refiner": names["Refiner"], "Refiner switch at": number(request.refiner_switch_at)}


def _counts(name: str, request: Request, names: Mapping[str, str]) -> bool:
    """Return whether the setting written as ``name`` changes a picture of ``request``."""
    if name in OF_THE_REFINER:
        return "Refiner" in names
    if name == OF_CODEFORMER:
        return request.restore_faces and request.settings.face_restoration_model == "CodeFormer"
    if name.startswith(OF_DIFFUSION_UPSCALERS):
        return bool(_upscalers(request).difference(UPSCALERS))
    return name != FACES or request.restore_faces


def _upscalers(request: Request) -> set[str]:
    """Return the upscalers that take part, whether they have much to do or not."""
    return {name for name, takes_part in (
        (request.hr_upscaler, request.enable_hr),
        (request.settings.upscaler_for_img2img, request.kind == "img2img")) if takes_part}


def _other(value: str, usual: str) -> str:
    return "" if value == usual else value
