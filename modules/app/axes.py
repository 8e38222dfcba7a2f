"""The axes of the X/Y/Z plot that are offered here, and the values that there are for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from modules.core.axes import (
    AXES,
    CHECKPOINTS,
    HIRES_UPSCALERS,
    SAMPLERS,
    SCHEDULES,
    STYLES,
    UPSCALERS,
    VAES,
    Axis,
    axes_in,
)
from modules.host.registry import Host
from modules.imaging.resize import LATENT_UPSCALERS
from modules.library.files import AUTOMATIC, NO_VAE
from modules.sampling.schedules import SCHEDULES as KNOWN_SCHEDULES

FILLED: Mapping[str, Callable[[Any], tuple[str, ...]]] = MappingProxyType({
    CHECKPOINTS: lambda app: tuple(one.name for one in app.library.checkpoints()),
    VAES: lambda app: (AUTOMATIC, NO_VAE, *(one.name for one in app.library.vaes())),
    SAMPLERS: lambda app: tuple(one.name for one in app.host.samplers()
                                if one.name not in app.settings.get().hide_samplers),
    SCHEDULES: lambda app: tuple(one.label for one in KNOWN_SCHEDULES),
    STYLES: lambda app: tuple(app.styles.all()),
    UPSCALERS: lambda app: app.offered_upscalers(),
    HIRES_UPSCALERS: lambda app: (*LATENT_UPSCALERS, *app.offered_upscalers()),
})


def axes(tab: str, host: Host) -> tuple[Axis, ...]:
    """Return the axes of ``tab`` (``txt2img`` or ``img2img``): the program's own, then those of plugins."""
    return axes_in(tab, (*AXES, *host.axes()))


def choices(axis: Axis, app: Any) -> tuple[str, ...]:
    """Return the values that ``axis`` can have as ``app`` knows them now; empty where any may be given."""
    return FILLED[axis.choices](app) if isinstance(axis.choices, str) else tuple(map(str, axis.choices))
