"""The plugins that are there, in order, and those that take part in a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.host.discover import Found
from modules.plugin.hooks import Active
from modules.plugin.params import read_params


@dataclass(frozen=True)
class Host:
    """All plugins found, the disabled and the broken ones included."""

    found: tuple[Found, ...]

    def active(self, request: Request) -> tuple[Active, ...]:
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

    def close(self) -> None:
        """Tell every plugin that the process ends."""
        for item in self.found:
            if item.plugin is not None:
                item.plugin.on_close()

    def _require(self, plugin_id: str) -> Any:
        for item in self.found:
            if item.id == plugin_id:
                if item.plugin is not None:
                    return item.plugin
                reason = item.error or "it is turned off"
                raise InvalidRequest(f"The extension {plugin_id!r} cannot be used: {reason}.")
        raise InvalidRequest(f"There is no extension {plugin_id!r}.")
