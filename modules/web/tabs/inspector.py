"""The Inspector tab: what a model file is and holds."""

from __future__ import annotations

from typing import Any

from modules.web.controls import markup
from modules.web.tabs import Tab


def build(app: Any) -> None:
    """Lay the tab out; its element asks for everything itself and is in the page only while the tab is open."""
    markup("<darkroom-inspector></darkroom-inspector>", elem_id="inspector_panel")


ENTRY = Tab("inspector", "Inspector", build)
