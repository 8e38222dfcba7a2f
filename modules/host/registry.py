"""The plugins that are there, in order, and those that take part in a request."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules.core.axes import Axis
from modules.core.errors import InvalidRequest
from modules.core.extras import Extras
from modules.core.request import Request
from modules.host.axes import plugin_axes
from modules.host.discover import Found
from modules.plugin import Asked, PageTab, Plugin, Route, Upscaler, Variant
from modules.plugin.hooks import Active, named
from modules.plugin.params import read_params
from modules.sampling.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Host:
    """All plugins found, the disabled and the broken ones included."""

    found: tuple[Found, ...]

    def active(self, request: Request | Extras) -> tuple[Active, ...]:
        """Return the loaded plugins with the parameters ``request`` gives them.

        Raises ``InvalidRequest`` for a plugin that is not there and for bad values.
        """
        for plugin_id in request.plugins:
            self._require(plugin_id)
        return tuple(
            Active(item.plugin, read_params(item.plugin.Params, request.plugins.get(item.id, {}), item.id))
            for item in self.found if item.plugin is not None
        )

    def failures(self) -> Mapping[str, str]:
        """Return why plugins could not be loaded, by id."""
        return {item.id: item.error for item in self.found if item.error}

    def words(self, variant: Variant | None) -> Mapping[str, int]:
        """Return the words that plugins give a number of tokens; what a plugin cannot tell is left out."""
        found: dict[str, int] = {}
        for plugin in self.plugins():
            try:
                found |= plugin.words(variant)
            except Exception:
                logger.exception("The extension %r failed in words.", plugin.id)
        return found

    def routes(self) -> tuple[Route, ...]:
        """Return what plugins answer over HTTP; a failure of one names it."""
        found: list[Route] = []
        for plugin in self.plugins():
            try:
                found.extend(named_route(plugin, route) for route in plugin.routes())
            except Exception:
                logger.exception("The extension %r failed in routes.", plugin.id)
        return tuple(found)

    def tabs(self) -> tuple[tuple[str, PageTab], ...]:
        """Return the tabs that plugins add to the page, each with an id of its own; a failing plugin adds none."""
        found: list[tuple[str, PageTab]] = []
        for plugin in self.plugins():
            try:
                found.extend((f"{plugin.id}_{number}", tab) for number, tab in enumerate(plugin.tabs()))
            except Exception:
                logger.exception("The extension %r failed in tabs.", plugin.id)
        return tuple(found)

    def upscalers(self) -> Mapping[str, Upscaler]:
        """Return the upscalers of pixels that plugins add, by name; their failures name the plugin."""
        found: dict[str, Upscaler] = {}
        for plugin in self.plugins():
            try:
                found |= {one.name: PluginUpscaler(plugin, one) for one in plugin.upscalers()}
            except Exception:
                logger.exception("The extension %r failed in upscalers.", plugin.id)
        return found

    def samplers(self) -> tuple[Sampler, ...]:
        """Return all samplers: those of the program, then those that plugins add; their failures name the plugin."""
        found = list(SAMPLERS)
        for plugin in self.plugins():
            try:
                found.extend(named_sampler(plugin, one) for one in plugin.samplers())
            except Exception:
                logger.exception("The extension %r failed in samplers.", plugin.id)
        return tuple(found)

    def axes(self) -> tuple[Axis, ...]:
        """Return the axes of the X/Y/Z plot that plugins add; their failures name the plugin."""
        found: list[Axis] = []
        for plugin in self.plugins():
            try:
                found.extend(plugin_axes(plugin))
            except Exception:
                logger.exception("The extension %r failed in axes.", plugin.id)
        return tuple(found)

    def plugins(self) -> tuple[Plugin, ...]:
        """Return the plugins that are loaded, in order."""
        return tuple(item.plugin for item in self.found if item.plugin is not None)

    def close(self) -> None:
        """Tell every plugin that the process ends."""
        for plugin in self.plugins():
            try:
                plugin.on_close()
            except Exception:
                logger.exception("The extension %r failed in on_close.", plugin.id)

    def _require(self, plugin_id: str) -> Any:
        for item in self.found:
            if item.id == plugin_id:
                if item.plugin is not None:
                    return item.plugin
                reason = item.error or "it is turned off"
                raise InvalidRequest(f"The extension {plugin_id!r} cannot be used: {reason}.")
        raise InvalidRequest(f"There is no extension {plugin_id!r}.")


@dataclass(frozen=True)
class PluginUpscaler:
    """A plugin's upscaler, whose failures name the plugin."""

    plugin: Plugin
    upscaler: Upscaler

    @property
    def name(self) -> str:
        """What the page and the infotext call it."""
        return self.upscaler.name

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return ``image`` in ``width`` by ``height`` pixels."""
        with named(self.plugin, f"the upscaler {self.name}"):
            return self.upscaler.upscale(image, width, height)


def named_sampler(plugin: Plugin, sampler: Sampler) -> Sampler:
    """Return ``sampler`` whose failures name ``plugin``."""
    @functools.wraps(sampler.sample)
    def sample(*given: Any, **options: Any) -> Any:
        with named(plugin, f"the sampler {sampler.name}"):
            return sampler.sample(*given, **options)
    return dataclasses.replace(sampler, sample=sample)


def named_route(plugin: Plugin, route: Route) -> Route:
    """Return ``route`` whose failures name ``plugin``."""
    def answer(asked: Asked) -> Any:
        with named(plugin, f"the route {route.path}"):
            return route.answer(asked)
    return dataclasses.replace(route, answer=answer)
