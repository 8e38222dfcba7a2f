"""The queue tab: what runs, what waits, what has ended."""

from __future__ import annotations

from typing import Any

from modules.web.controls import markup
from modules.web.tabs import Tab


def build(app: Any) -> None:
    """Lay the tab out; its element asks for the queue itself and is in the page only while the tab is open."""
    markup("<darkroom-queue></darkroom-queue>", elem_id="queue_panel")


ENTRY = Tab("queue", "Queue", build)
