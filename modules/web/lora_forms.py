"""Sections of the Checkpoint Merger tab that make LoRAs: of others, and of the difference of two checkpoints."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules.core.lora import MAX_RANK, PRECISIONS, LoraExtraction, LoraMerge
from modules.web.controls import Controls
from modules.web.form import Field, Form
from modules.web.work_form import WorkForm, listed, show_loras

MERGE, EXTRACT = "modelmerger_loras", "modelmerger_extraction"
SLIDER_RANK = 320
TAGS_HELP = "As in a prompt: <lora:name:weight>, <lora:name:text encoder:denoiser>, lbw= for weights by block."
LORAS = Field("loras", "LoRAs", "text", "", f"{MERGE}_tags", lines=4, help=TAGS_HELP,
              placeholder="<lora:one:0.8>\n<lora:other:-0.5>")
MERGE_FIELDS: Form = (
    LORAS,
    Field("model", "Model that they are for", "choice", "", f"{MERGE}_model", empty="The chosen checkpoint",
          help="Its modules decide what belongs together."),
    Field("rank", "Rank", "number", 0, f"{MERGE}_rank", minimum=0, maximum=MAX_RANK,
          help="0 is exact: ranks add up. Another one is the most that the result has."),
    Field("dtype", "Save as", "choice", PRECISIONS[0], f"{MERGE}_dtype", choices=PRECISIONS, strict=True),
    Field("name", "Custom Name (Optional)", "text", "", f"{MERGE}_name"),
)
EXTRACT_FIELDS: Form = (
    Field("model_a", "Original model (A)", "choice", "", f"{EXTRACT}_model_a", empty="None"),
    Field("model_b", "Tuned model (B)", "choice", "", f"{EXTRACT}_model_b", empty="None"),
    Field("rank", "Rank", "slider", 64, f"{EXTRACT}_rank", minimum=0, maximum=SLIDER_RANK),
    Field("conv_rank", "Rank of convolutions (0: none)", "slider", 0, f"{EXTRACT}_conv_rank", minimum=0,
          maximum=SLIDER_RANK),
    Field("energy", "Share of each layer's difference that is enough", "slider", 1.0, f"{EXTRACT}_energy",
          minimum=0.05, maximum=1.0, step=0.01, help="Below 1 simple layers get fewer ranks."),
    Field("clamp", "Share of values that are not cut off", "slider", 1.0, f"{EXTRACT}_clamp", minimum=0.9,
          maximum=1.0, step=0.005),
    Field("text_encoders", "Text encoders, too", "checkbox", True, f"{EXTRACT}_text_encoders"),
    Field("exact", "Biases, norms and embeddings, too", "checkbox", False, f"{EXTRACT}_exact",
          help="Not every program reads these."),
    Field("dtype", "Save as", "choice", PRECISIONS[0], f"{EXTRACT}_dtype", choices=PRECISIONS, strict=True),
    Field("name", "Custom Name (Optional)", "text", "", f"{EXTRACT}_name"),
)


def merge_form(app: Any) -> Form:
    """Return the fields of a merge of LoRAs, with the checkpoints that are on disk now."""
    return listed(MERGE_FIELDS, {"model": [one.name for one in app.library.checkpoints()]})


def extract_form(app: Any) -> Form:
    """Return the fields of an extraction, with the checkpoints that are on disk now."""
    return listed(EXTRACT_FIELDS, dict.fromkeys(("model_a", "model_b"), [
        one.name for one in app.library.checkpoints()]))


def _lay_merge(controls: Controls) -> None:
    show_loras(controls, f"{MERGE}_add")
    controls.show("model")
    _pair(controls, "rank", "dtype")
    controls.show("name")


def _lay_extraction(controls: Controls) -> None:
    _pair(controls, "model_a", "model_b")
    _pair(controls, "rank", "conv_rank")
    _pair(controls, "energy", "clamp")
    _pair(controls, "text_encoders", "exact")
    _pair(controls, "dtype", "name")


def _pair(controls: Controls, *names: str) -> None:
    with gr.Row():
        for name in names:
            controls.show(name, min_width=180)


SECTIONS = (WorkForm(MERGE, "LoRAs", "Merge LoRAs", merge_form, LoraMerge, _lay_merge),
            WorkForm(EXTRACT, "Extract", "Extract a LoRA", extract_form, LoraExtraction, _lay_extraction))
