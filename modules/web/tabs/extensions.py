"""The extensions tab: what was found, what is on, what failed and why."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from modules.core.errors import NotFound
from modules.web.controls import markup
from modules.web.tabs import Tab


def build(app: Any) -> None:
    """Lay the tab out; its element asks for the list itself."""
    markup("<darkroom-extensions></darkroom-extensions>", elem_id="extensions_panel")


def switch_extension(app: Any, extension_id: str, enabled: bool, installed: Collection[str] = ()) -> None:
    """Turn an extension, or one that was ``installed`` meanwhile, on or off from the next start on.

    Raises ``NotFound``.
    """
    if extension_id not in {*installed, *(found.id for found in app.host.found)}:
        raise NotFound(f"There is no extension {extension_id!r}.")
    others = tuple(name for name in app.settings.get().disabled_extensions if name != extension_id)
    app.settings.update({"disabled_extensions": others if enabled else (*others, extension_id)})


ENTRY = Tab("extensions", "Extensions", build)
