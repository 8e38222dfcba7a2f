"""What a file seems to be that no family knows, from its tensors' names, so that the user can put it right."""

from __future__ import annotations

from collections.abc import Iterable

from modules.library.headers import Header

# Prefixes or parts of names, and what a file that has them is; the first that fits is said.
SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("lora_unet_", "lora_te", ".lora_up.", ".lora_down.", ".lora_A.", ".lora_B.", "hada_w1_a", "lokr_w1"),
     "it is a LoRA, which belongs into models/Lora"),
    (("low_scale_model.", "label_emb.weight"),
     "it is a part of Stable Diffusion 2's x4 upscaler, or one of a shape that is not supported"),
    (("conditioner.embedders.",), "it is an SDXL model of a shape that is not supported, or a part of one"),
    (("embedder.model.", "noise_augmentor.", "label_emb.0.0."),
     "it is a model told more than a text, such as Stable Diffusion 2's unCLIP, which is not supported"),
    (("cond_stage_model.model.",), "it is a Stable Diffusion 2 model without its denoiser"),
    (("double_blocks.", "single_transformer_blocks."), "it is a Flux model, a family that is not supported yet"),
    (("joint_blocks.",), "it is a Stable Diffusion 3 model, a family that is not supported yet"),
    (("control_model.", "controlnet_cond_embedding.", "input_hint_block.", "zero_convs."),
     "it is a ControlNet, which belongs into models/ControlNet"),
    (("string_to_param", "emb_params", "clip_l", "clip_g"), "it is an embedding, which belongs into embeddings"),
    (("first_stage_model.", "decoder.up_blocks.", "decoder.up."), "it is a VAE alone, which belongs into models/VAE"),
    (("RRDB_trunk.", "body.0.rdb1", "conv_first.", "model.1.sub."),
     "it is an upscaler, which belongs into models/ESRGAN"),
    (("model.diffusion_model.", "input_blocks.", "down_blocks."),
     "it is a diffusion model of a kind that is not supported"),
    (("text_model.", "encoder.block.", "transformer.resblocks."), "it is a text encoder alone"),
)


def impression(header: Header) -> str:
    """Return a clause that says what ``header`` seems to be."""
    if header.components:
        pipeline = header.index.get("_class_name", "an unnamed pipeline")
        return f"it is a diffusers folder for {pipeline}, which is not supported yet"
    return _by_names(header.tensors) or "its tensors are of no architecture known here"


def _by_names(names: Iterable[str]) -> str | None:
    listed = list(names)
    if not listed:
        return "it holds no tensors"
    for signs, what in SIGNS:
        if any(name.startswith(sign) or sign in name for name in listed for sign in signs):
            return what
    return None
