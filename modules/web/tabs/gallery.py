"""The gallery tab: every picture made, found by words."""

from __future__ import annotations

import gradio as gr


def build() -> None:
    """Lay the tab out; its element asks for pictures itself and is in the page only while the tab is open."""
    gr.HTML("<darkroom-gallery></darkroom-gallery>", elem_id="gallery_panel")
