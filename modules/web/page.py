"""The page as Gradio blocks: pickers on top, then the tabs in AUTOMATIC1111's order."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules import __version__
from modules.web import quicksettings
from modules.web.controls import markup
from modules.web.tabs import extensions, gallery, pnginfo, queue, settings, txt2img

TITLE = "Darkroom"


def blocks(app: Any) -> gr.Blocks:
    """Return the whole page for ``app``, laid out and connected."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        pickers = quicksettings.build()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("txt2img", id="txt2img", elem_id="tab_txt2img") as txt2img_tab:
                txt2img_controls = txt2img.build(app)
            with gr.Tab("PNG Info", id="pnginfo", elem_id="tab_pnginfo"):
                pnginfo.build()
            with gr.Tab("Queue", id="queue", elem_id="tab_queue"):
                queue.build()
            with gr.Tab("Gallery", id="gallery", elem_id="tab_gallery"):
                gallery.build()
            with gr.Tab("Settings", id="settings", elem_id="tab_settings") as settings_tab:
                settings_controls = settings.build()
            with gr.Tab("Extensions", id="extensions", elem_id="tab_extensions"):
                extensions.build()
        markup(_footer(), elem_id="footer")
        quicksettings.wire(pickers, app, page)
        txt2img.wire(txt2img_controls, app, txt2img_tab, page)
        settings.wire(settings_controls, app, settings_tab)
    return page


def _footer() -> str:
    return (f'<footer>Darkroom {__version__} · <a href="docs">API</a> · '
            '<button type="button" id="theme_switch">Light or dark</button></footer>')
