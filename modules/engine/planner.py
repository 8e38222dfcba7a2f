"""A request becomes a plan: seeds, pictures, batches, passes and the infotext's entries. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from modules import __version__
from modules.core.plan import Guidance, ModelRef, Pass, Picture, Plan, Segment
from modules.core.request import MAX_SEED, Request
from modules.core.settings import Settings, setting_infos
from modules.prompts import tags

# Entries with a place of their own in the infotext, before the settings that merely differ from their defaults.
PLACED = ("Clip skip", "ENSD", "RNG")


@dataclasses.dataclass(frozen=True)
class ModelNames:
    """What the infotext calls the model and the VAE; ``vae`` is empty for the checkpoint's own."""

    model: str
    vae: str = ""


def plan(request: Request, model: ModelRef, names: ModelNames, extra: Mapping[str, str]) -> Plan:
    """Return the plan for ``request``, whose seeds are fixed, on ``model``; ``extra`` are plugins' infotext entries."""
    pictures = tuple(_picture(request, index) for index in range(request.batch_size * request.batch_count))
    base = Pass(
        request.width, request.height, request.steps, request.sampler, request.schedule,
        Guidance(request.guidance_scale),
        (Segment(model),),
    )
    return Plan(request, pictures, (base,), parameters(request, names, extra))


def batches(pictures: tuple[Picture, ...], size: int) -> tuple[tuple[int, ...], ...]:
    """Return indices of pictures sampled together: at most ``size``, and only with the same network tags."""
    cut = (pictures[start:start + size] for start in range(0, len(pictures), size))
    return tuple(
        tuple(picture.index for picture in group)
        for batch in cut for _, group in groupby(batch, key=network_tags)
    )


def network_tags(picture: Picture) -> tuple[str, ...]:
    """Return the tags of a picture's prompt as they are written."""
    return tuple(str(tag) for tag in tags.extract(picture.prompt)[1])


def parameters(request: Request, names: ModelNames, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the infotext's entries that all pictures share, in A1111's order.

    ``Seed`` is put in per picture; hashes are empty until the file is written.
    """
    settings = request.settings
    entries: dict[str, Any] = {
        "Steps": request.steps,
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": _number(request.guidance_scale),
        "Seed": "",
        "Size": f"{request.width}x{request.height}",
    }
    entries |= _model_entries(settings, names)
    if request.subseed_strength > 0:
        entries |= {"Variation seed": "", "Variation seed strength": _number(request.subseed_strength)}
    if request.seed_resize_from_w > 0 and request.seed_resize_from_h > 0:
        entries["Seed resize from"] = f"{request.seed_resize_from_w}x{request.seed_resize_from_h}"
    changed = changed_settings(settings)
    entries |= {name: changed[name] for name in PLACED if name in changed}
    entries |= {name: value for name, value in changed.items() if name not in PLACED}
    entries |= {name: value for name, value in {**extra, **request.parameters}.items() if name not in entries}
    if settings.add_version_to_infotext:
        entries["Version"] = f"Darkroom {__version__}"
    return {name: str(value) for name, value in entries.items()}


def changed_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that change the picture and differ from the infotext's defaults, by infotext name.

    ``RNG`` is always written: readers take a missing one for ``GPU``.
    """
    defaults = Settings()
    return {
        info.infotext: _number(getattr(settings, name))
        for name, info in setting_infos().items()
        if info.infotext and (name == "randn_source" or getattr(settings, name) != getattr(defaults, name))
    }


def picture_parameters(plan: Plan, picture: Picture) -> dict[str, str]:
    """Return one picture's infotext entries: the plan's with its own seeds, and what plugins added to it."""
    entries = dict(plan.parameters)
    entries["Seed"] = str(picture.seed)
    if "Variation seed" in entries:
        entries["Variation seed"] = str(picture.subseed)
    version = entries.pop("Version", None)
    entries |= picture.parameters
    return entries | ({"Version": version} if version else {})


def _picture(request: Request, index: int) -> Picture:
    varies = request.subseed_strength > 0
    seed = request.seed if varies else (request.seed + index) % (MAX_SEED + 1)
    subseed = (request.subseed + index) % (MAX_SEED + 1)
    return Picture(index, request.prompt, request.negative_prompt, seed, subseed)


def _model_entries(settings: Settings, names: ModelNames) -> dict[str, str]:
    entries = {}
    if settings.add_model_hash_to_info:
        entries["Model hash"] = ""
    if settings.add_model_name_to_info:
        entries["Model"] = names.model
    if names.vae and settings.add_vae_hash_to_info:
        entries["VAE hash"] = ""
    if names.vae and settings.add_vae_name_to_info:
        entries["VAE"] = names.vae
    return entries


def _number(value: Any) -> str:
    """Write 7.0 as 7, as old infotexts do."""
    return f"{value:g}" if isinstance(value, float) else str(value)
