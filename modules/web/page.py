"""The page as Gradio blocks: pickers on top, then the tabs in AUTOMATIC1111's order."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules import __version__
from modules.plugin import PageTab
from modules.web import quicksettings
from modules.web.controls import markup
from modules.web.tabs import (
    Tab,
    extensions,
    extras,
    gallery,
    img2img,
    inspector,
    merge,
    pnginfo,
    queue,
    settings,
    txt2img,
)

TITLE = "Darkroom"

TABS: tuple[Tab, ...] = (
    txt2img.ENTRY, img2img.ENTRY, extras.ENTRY, pnginfo.ENTRY, merge.ENTRY, inspector.ENTRY, queue.ENTRY,
    gallery.ENTRY, settings.ENTRY, extensions.ENTRY,
)


def blocks(app: Any) -> gr.Blocks:
    """Return the whole page for ``app``, laid out and connected."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        pickers = quicksettings.build()
        laid_out = []
        with gr.Tabs(elem_id="tabs"):
            for entry in (*TABS, *_extension_tabs(app)):
                with gr.Tab(entry.label, id=entry.id, elem_id=f"tab_{entry.id}") as tab:
                    laid_out.append((entry, tab, entry.build(app)))
        markup(_footer(), elem_id="footer")
        quicksettings.wire(pickers, app, page)
        for entry, tab, controls in laid_out:
            if entry.wire is not None:
                entry.wire(controls, app, tab, page)
    return page


def _extension_tabs(app: Any) -> tuple[Tab, ...]:
    def entry(tab_id: str, tab: PageTab) -> Tab:
        return Tab(f"extension_{tab_id}", tab.label, lambda app: markup(tab.html))
    return tuple(entry(tab_id, tab) for tab_id, tab in app.host.tabs())


def _footer() -> str:
    return (f'<footer>Darkroom {__version__} · <a href="docs">API</a> · '
            '<button type="button" id="theme_switch">Light or dark</button></footer>')
