"""One file per tab: ``build`` lays it out, ``wire`` connects it, ``ENTRY`` is what the page lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tab:
    """A tab of the page; ``id`` is its address, ``tab_`` and ``id`` its element's id.

    ``build(app)`` lays it out and returns its controls. Once all tabs are laid out, ``wire(controls, app, tab, page)``
    connects them; ``tab`` and ``page`` are Gradio's blocks, for the events of opening either. A tab whose element
    asks the server by itself needs no ``wire``.
    """

    id: str
    label: str
    build: Callable[[Any], Any]
    wire: Callable[[Any, Any, Any, Any], None] | None = None
