"""The gallery tab: every picture made, found by words."""

from __future__ import annotations

from typing import Any

from modules.web.controls import markup
from modules.web.tabs import Tab


def build(app: Any) -> None:
    """Lay the tab out; its element asks for pictures itself and is in the page only while the tab is open."""
    markup("<darkroom-gallery></darkroom-gallery>", elem_id="gallery_panel")


ENTRY = Tab("gallery", "Gallery", build)
