"""Hires fix: a panel of txt2img's form, opened by the checkbox in its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from modules.core.errors import InvalidRequest
from modules.core.request import Request, hires_size
from modules.imaging.upscalers import UPSCALERS
from modules.web.controls import Controls, gated
from modules.web.events import listen
from modules.web.form import Field, Form, value_of

FIELDS: Form = (
    Field("enable_hr", "Hires. fix", "checkbox", False, "txt2img_hr-checkbox", "enable_hr"),
    Field("hr_upscaler", "Upscaler", "choice", "Latent", "txt2img_hr_upscaler", "hr_upscaler", choices=UPSCALERS),
    Field("hr_second_pass_steps", "Hires steps", "slider", 0, "txt2img_hires_steps", "hr_second_pass_steps", 0, 150, 1),
    Field("denoising_strength", "Denoising strength", "slider", 0.7, "txt2img_denoising_strength",
          "denoising_strength", 0.0, 1.0, 0.01),
    Field("hr_scale", "Upscale by", "slider", 2.0, "txt2img_hr_scale", "hr_scale", 1.0, 4.0, 0.05),
    Field("hr_resize_x", "Resize width to", "slider", 0, "txt2img_hr_resize_x", "hr_resize_x", 0, 2048, 8),
    Field("hr_resize_y", "Resize height to", "slider", 0, "txt2img_hr_resize_y", "hr_resize_y", 0, 2048, 8),
    Field("hr_checkpoint", "Hires checkpoint", "choice", "", "hr_checkpoint", "hr_checkpoint",
          empty="Use same checkpoint"),
    Field("hr_sampler", "Hires sampling method", "choice", "", "hr_sampler", "hr_sampler", empty="Use same sampler"),
    Field("hr_schedule", "Hires schedule type", "choice", "", "hr_scheduler", "hr_schedule",
          empty="Use same scheduler"),
    Field("hr_cfg", "Hires CFG Scale", "slider", 0.0, "txt2img_hr_cfg", "hr_guidance_scale", 0.0, 30.0, 0.5),
    Field("hr_prompt", "Hires prompt", "text", "", "hires_prompt", "hr_prompt", lines=2,
          placeholder="Hires prompt (empty: the same prompt)"),
    Field("hr_negative_prompt", "Hires negative prompt", "text", "", "hires_neg_prompt", "hr_negative_prompt", lines=2,
          placeholder="Hires negative prompt (empty: the same one)"),
)
SIZES = ("width", "height", "hr_scale", "hr_resize_x", "hr_resize_y")


def build(controls: Controls) -> Any:
    """Lay the panel out; return the place in which ``wire`` writes the sizes of both passes."""
    with gated(controls, "enable_hr", "txt2img_hr") as head:
        with gr.Row(elem_id="txt2img_hires_fix_row1"):
            _show(controls, "hr_upscaler", "hr_second_pass_steps", "denoising_strength")
        with gr.Row(elem_id="txt2img_hires_fix_row2"):
            _show(controls, "hr_scale", "hr_resize_x", "hr_resize_y")
        with gr.Row(elem_id="txt2img_hires_fix_row3"):
            _show(controls, "hr_checkpoint", "hr_cfg")
        with gr.Row():
            _show(controls, "hr_sampler", "hr_schedule")
        with gr.Row(elem_id="txt2img_hires_fix_row4"):
            for name in ("hr_prompt", "hr_negative_prompt"):
                controls.show(name, show_label=False, container=False, min_width=240, max_lines=12)
    return head


def wire(controls: Controls, place: Any) -> None:
    """Keep the text in ``place`` true to the sizes of the form."""
    def show(data: Mapping[Any, Any]) -> str:
        return size_text(controls.form, controls.values(data))

    sizes = {controls[name] for name in SIZES}
    changes = [controls[name].change for name in ("enable_hr", *SIZES)]
    listen(changes, show, inputs=sizes, outputs=place, trigger_mode="always_last")


def size_text(form: Form, values: Mapping[str, Any]) -> str:
    """Return HTML that says from which size to which hires fix goes, empty while a number is being typed."""
    fields = {field.name: field for field in form}
    try:
        request = Request(**{name: value_of(fields[name], values.get(name)) for name in SIZES})
    except InvalidRequest:
        return ""
    width, height = hires_size(request)[1]
    return f"from <b>{request.width}x{request.height}</b> to <b>{width}x{height}</b>"


def _show(controls: Controls, *names: str) -> None:
    for name in names:
        controls.show(name, min_width=150)
