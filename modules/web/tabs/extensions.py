"""The extensions tab: what was found, what is on, what failed and why."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules.core.errors import NotFound


def build() -> None:
    """Lay the tab out; its element asks for the list itself."""
    gr.HTML("<darkroom-extensions></darkroom-extensions>", elem_id="extensions_panel")


def extension_views(app: Any) -> list[dict[str, Any]]:
    """Return all extensions as the page shows them; ``pending`` ones change with the next start."""
    disabled = app.settings.get().disabled_extensions
    return [_view(found, found.id not in disabled) for found in app.host.found]


def switch_extension(app: Any, extension_id: str, enabled: bool) -> list[dict[str, Any]]:
    """Turn an extension on or off from the next start on; return the list. Raises ``NotFound``."""
    if extension_id not in {found.id for found in app.host.found}:
        raise NotFound(f"There is no extension {extension_id!r}.")
    others = tuple(name for name in app.settings.get().disabled_extensions if name != extension_id)
    app.settings.update({"disabled_extensions": others if enabled else (*others, extension_id)})
    return extension_views(app)


def _view(found: Any, enabled: bool) -> dict[str, Any]:
    plugin = found.plugin
    return {
        "id": found.id,
        "name": plugin.name if plugin else found.id,
        "description": plugin.description if plugin else "",
        "version": plugin.version if plugin else "",
        "error": found.error,
        "enabled": enabled,
        "pending": enabled != (plugin is not None or bool(found.error)),
    }
