"""The parts of a tab that makes pictures, laid out in A1111's order under its element ids."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules.web import plots, styles
from modules.web.controls import Controls, gated, markup
from modules.web.form import PLUGIN_SEPARATOR


def paste_id(tab: str) -> str:
    """Return the id of the button that reads parameters; A1111 calls that of txt2img by no tab's name."""
    return "paste" if tab == "txt2img" else f"{tab}_paste"


def build_top(controls: Controls, tab: str) -> None:
    """Lay out the prompts, and beside them the buttons that act."""
    with gr.Row(elem_id=f"{tab}_toprow", equal_height=False):
        with gr.Column(elem_id=f"{tab}_prompt_container", scale=6, min_width=320):
            _prompts(controls, tab)
        with gr.Column(elem_id=f"{tab}_actions_column", scale=1, min_width=220):
            _actions(controls, tab)


def build_networks(tab: str) -> None:
    """Lay out the place of the networks browser; while it is open it stands in for what follows in its column."""
    markup(f'<darkroom-networks tab="{tab}"></darkroom-networks>', elem_id=f"{tab}_extra_tabs")


def build_sampler(controls: Controls, tab: str) -> None:
    """Lay out sampler, schedule and steps."""
    with gr.Row(elem_id=f"sampler_selection_{tab}"):
        controls.show("sampler", min_width=140)
        controls.show("schedule", min_width=140)
        controls.show("steps", min_width=180)


def build_sides(controls: Controls, tab: str) -> None:
    """Lay out width and height with their buttons."""
    with gr.Column(elem_id=f"{tab}_column_size", scale=4, min_width=180):
        controls.show("width")
        controls.show("height")
    with gr.Column(elem_id=f"{tab}_dimensions_buttons", scale=0, min_width=36):
        controls.tool("Swap width and height", f"{tab}_res_switch_btn", "swap")
        controls.tool("Size that the model was made for", f"{tab}_res_native_btn", "native")
        if tab == "img2img":
            controls.tool("Size of the picture", "img2img_detect_image_size_btn", "measure")


def build_batch(controls: Controls, tab: str) -> None:
    """Lay out how many pictures are made."""
    with gr.Column(elem_id=f"{tab}_column_batch", scale=4, min_width=180):
        controls.show("batch_count")
        controls.show("batch_size")


def build_seed(controls: Controls, tab: str) -> None:
    """Lay out the seed, and what is shown of it once Extra is on."""
    with gr.Row(elem_id=f"{tab}_seed_row", elem_classes=["seed-row"]):
        controls.show("seed", scale=4, min_width=120)
        controls.tool("Random seed", f"{tab}_random_seed", "dice")
        controls.tool("Reuse seed of the shown picture", f"{tab}_reuse_seed", "recycle")
        controls.show("subseed_show", scale=0, min_width=80)
    with gr.Column(elem_id=f"{tab}_seed_extras", elem_classes=["seed-extras"]):
        with gr.Row(elem_classes=["seed-row"]):
            controls.show("subseed", scale=4, min_width=120)
            controls.tool("Random variation seed", f"{tab}_random_subseed", "dice")
            controls.tool("Reuse variation seed of the shown picture", f"{tab}_reuse_subseed", "recycle")
            controls.show("subseed_strength", scale=4, min_width=160)
        with gr.Row():
            controls.show("seed_resize_from_w", min_width=160)
            controls.show("seed_resize_from_h", min_width=160)


def build_more(controls: Controls, tab: str, app: Any) -> None:
    """Lay out the refiner, the X/Y/Z plot, a panel for each plugin with parameters, and the overrides."""
    with gated(controls, "refiner_enable", f"{tab}_enable"), gr.Row():
        controls.show("refiner", min_width=200)
        controls.show("refiner_switch_at", min_width=180)
    plots.build(controls, tab)
    build_plugins(controls, tab, app)
    controls.show("override_settings", elem_classes=["override-settings"])


def build_plugins(controls: Controls, tab: str, app: Any) -> None:
    """Lay out a panel for each plugin with parameters in this tab."""
    with gr.Column(elem_id=f"{tab}_script_container"):
        for found in app.host.found:
            own = [field.name for field in controls.form if field.name.startswith(f"{found.id}{PLUGIN_SEPARATOR}")]
            if not own:
                continue
            with gr.Accordion(found.plugin.name or found.id, open=False, elem_id=f"{tab}_{found.id}"):
                for name in own:
                    controls.show(name)


def build_results(tab: str) -> None:
    """Lay out the place in which the page's scripts show what was made."""
    with gr.Column(elem_id=f"{tab}_results", min_width=320):
        markup(f'<darkroom-results tab="{tab}"></darkroom-results>', elem_id=f"{tab}_results_panel")


def _prompts(controls: Controls, tab: str) -> None:
    for name, counter in (("prompt", "token_counter"), ("negative_prompt", "negative_token_counter")):
        with gr.Column(elem_classes=["prompt-row"]):
            controls.show(name, show_label=False, container=False, max_lines=18)
            markup('<span class="token-counter">0/75</span>', elem_id=f"{tab}_{counter}")


def _actions(controls: Controls, tab: str) -> None:
    with gr.Column(elem_id=f"{tab}_generate_box"):
        controls.button("Generate", f"{tab}_generate", variant="primary")
        with gr.Row(elem_id=f"{tab}_running_actions"):
            controls.button("Interrupt", f"{tab}_interrupt")
            controls.button("Skip", f"{tab}_skip")
    with gr.Row(elem_id=f"{tab}_tools"):
        controls.tool("Read generation parameters", paste_id(tab), "paste")
        controls.tool("Clear prompt", f"{tab}_clear_prompt", "clear")
    styles.build(controls, tab)
