"""The fields that all tabs share which make pictures; ``tab`` is the prefix of their element ids, as in A1111."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.imaging.resize import LATENT_UPSCALERS
from modules.sampling.schedules import SCHEDULES
from modules.web.form import OVERRIDES, Field, Form, plugin_fields, with_choices
from modules.web.plot_form import TYPES, with_axes

PROMPT_HINT = "Prompt (Ctrl+Enter generates, Alt+Enter skips, Esc interrupts)"
# Choices that may be others at the next look: files come and go, settings hide samplers.
LISTED = ("sampler", "styles", "hr_checkpoint", "hr_sampler", "hr_upscaler", "refiner", *TYPES)


def shared_fields(tab: str) -> Form:
    """Return the fields of prompts, sampling, size, seed, refiner and overrides."""
    return (*_prompt_fields(tab), *_sampling_fields(tab), *_seed_fields(tab), *_refiner_fields(tab),
            Field(OVERRIDES, "Override settings", "choices", (), f"{tab}_override_settings"))


def complete(fields: Form, tab: str, app: Any) -> Form:
    """Return ``fields`` with the choices that there are now, and those of all loaded plugins."""
    choices = _choices(app)
    plugins = (plugin for plugin in app.host.plugins() if tab in plugin.panels)
    listed = tuple(with_choices(item, choices[item.name]) if item.name in choices else item for item in fields)
    return with_axes(listed, app.axes(tab)) + tuple(
        field for plugin in plugins for field in plugin_fields(plugin.id, plugin.Params, tab))


def _choices(app: Any) -> Mapping[str, tuple[str, ...]]:
    hidden = app.settings.get().hide_samplers
    samplers = tuple(item.name for item in app.host.samplers() if item.name not in hidden)
    schedules = tuple(item.label for item in SCHEDULES)
    checkpoints = tuple(item.name for item in app.library.checkpoints())
    return {"sampler": samplers, "schedule": schedules, "styles": tuple(app.styles.all()),
            "hr_checkpoint": checkpoints, "hr_sampler": samplers, "hr_schedule": schedules, "refiner": checkpoints,
            "hr_upscaler": (*LATENT_UPSCALERS, *app.offered_upscalers())}


def _prompt_fields(tab: str) -> Form:
    return (
        Field("prompt", "Prompt", "text", "", f"{tab}_prompt", "prompt", lines=3, placeholder=PROMPT_HINT),
        Field("negative_prompt", "Negative prompt", "text", "", f"{tab}_neg_prompt", "negative_prompt", lines=3,
              placeholder="Negative prompt"),
        Field("styles", "Styles", "choices", (), f"{tab}_styles", "styles"),
    )


def _sampling_fields(tab: str) -> Form:
    return (
        Field("sampler", "Sampling method", "choice", "DPM++ 2M", f"{tab}_sampling", "sampler"),
        Field("schedule", "Schedule type", "choice", "Automatic", f"{tab}_scheduler", "schedule"),
        Field("steps", "Sampling steps", "slider", 20, f"{tab}_steps", "steps", 1, 150, 1),
        Field("width", "Width", "slider", 512, f"{tab}_width", "width", 64, 2048, 8),
        Field("height", "Height", "slider", 512, f"{tab}_height", "height", 64, 2048, 8),
        Field("batch_count", "Batch count", "slider", 1, f"{tab}_batch_count", "batch_count", 1, 100, 1),
        Field("batch_size", "Batch size", "slider", 1, f"{tab}_batch_size", "batch_size", 1, 8, 1),
        Field("cfg_scale", "CFG Scale", "slider", 7.0, f"{tab}_cfg_scale", "guidance_scale", 1.0, 30.0, 0.5),
        Field("restore_faces", "Restore faces", "checkbox", False, f"{tab}_restore_faces", "restore_faces"),
        Field("tiling", "Tiling", "checkbox", False, f"{tab}_tiling", "tiling"),
    )


def _seed_fields(tab: str) -> Form:
    return (
        Field("seed", "Seed", "seed", -1, f"{tab}_seed", "seed", -1),
        Field("subseed_show", "Extra", "checkbox", False, f"{tab}_subseed_show"),
        Field("subseed", "Variation seed", "seed", -1, f"{tab}_subseed", "subseed", -1),
        Field("subseed_strength", "Variation strength", "slider", 0.0, f"{tab}_subseed_strength", "subseed_strength",
              0.0, 1.0, 0.01),
        Field("seed_resize_from_w", "Resize seed from width", "slider", 0, f"{tab}_seed_resize_from_w",
              "seed_resize_from_w", 0, 2048, 8),
        Field("seed_resize_from_h", "Resize seed from height", "slider", 0, f"{tab}_seed_resize_from_h",
              "seed_resize_from_h", 0, 2048, 8),
    )


def _refiner_fields(tab: str) -> Form:
    return (
        Field("refiner_enable", "Refiner", "checkbox", False, f"{tab}_enable-checkbox"),
        Field("refiner", "Checkpoint", "choice", "", f"{tab}_checkpoint", "refiner", empty="None"),
        Field("refiner_switch_at", "Switch at", "slider", 0.8, f"{tab}_switch_at", "refiner_switch_at", 0.01, 1.0,
              0.01),
    )
