"""The fields that only img2img has, and what they and the stored pictures ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.core.errors import InvalidRequest, NotFound
from modules.library.inputs import Inputs
from modules.library.paste_image import FILLS, RESIZE_MODES, SOURCES
from modules.web.form import Field, Form

BATCH = "batch"
MODES = ("image", "sketch", "inpaint", "inpaint_sketch", "inpaint_upload", BATCH)
MODE_LABELS = ("img2img", "Sketch", "Inpaint", "Inpaint sketch", "Inpaint upload", "Batch")
INPAINTING = MODES[2:5]
MIN_SIDE, MAX_SIDE = 64, 2048

FIELDS: Form = (
    Field("mode", "Mode", "radio", "image", "mode_img2img", choices=MODES, labels=MODE_LABELS, strict=True),
    Field("resize_mode", "Resize mode", "radio", 0, "resize_mode", "resize_mode", choices=(0, 1, 2, 3),
          labels=RESIZE_MODES, strict=True),
    Field("size_by", "Size", "radio", "to", "img2img_size_by", choices=("to", "by"),
          labels=("Resize to", "Resize by"), strict=True),
    Field("scale", "Scale", "slider", 1.0, "img2img_scale", "", 0.05, 4.0, 0.05),
    Field("denoising_strength", "Denoising strength", "slider", 0.75, "img2img_denoising_strength",
          "denoising_strength", 0.0, 1.0, 0.01),
    Field("image_cfg_scale", "Image CFG Scale", "slider", 1.5, "img2img_image_cfg_scale", "image_cfg_scale", 0.0, 3.0,
          0.05),
    Field("noise_multiplier", "Noise multiplier", "slider", 1.0, "img2img_noise_multiplier",
          "initial_noise_multiplier", 0.0, 1.5, 0.001, help="Less than 1 keeps more of the picture."),
    Field("mask_blur", "Mask blur", "slider", 4, "img2img_mask_blur", "mask_blur_x", 0, 64, 1),
    Field("mask_mode", "Mask mode", "radio", False, "img2img_mask_mode", "inpainting_mask_invert",
          choices=(False, True), labels=("Inpaint masked", "Inpaint not masked"), strict=True),
    Field("inpainting_fill", "Masked content", "radio", 1, "img2img_inpainting_fill", "inpainting_fill",
          choices=(0, 1, 2, 3), labels=FILLS, strict=True),
    Field("inpaint_full_res", "Inpaint area", "radio", False, "img2img_inpaint_full_res", "inpaint_full_res",
          choices=(False, True), labels=("Whole picture", "Only masked"), strict=True),
    Field("inpaint_full_res_padding", "Only masked padding, pixels", "slider", 32, "img2img_inpaint_full_res_padding",
          "inpaint_full_res_padding", 0, 256, 4),
    Field("inpaint_mode", "Shades of the mask", "radio", "masked", "img2img_inpaint_mode", "inpaint_mode",
          choices=("masked", "differential"), labels=("Blend", "Differential diffusion"), strict=True,
          help="Where the mask is grey: both pictures blended, or changed for fewer of the steps."),
    Field("outpaint_enable", "Outpainting", "checkbox", False, "img2img_outpaint-checkbox"),
    Field("outpaint_left", "Left", "slider", 0, "img2img_outpaint_left", "outpaint_left", 0, 1024, 8),
    Field("outpaint_right", "Right", "slider", 0, "img2img_outpaint_right", "outpaint_right", 0, 1024, 8),
    Field("outpaint_up", "Up", "slider", 0, "img2img_outpaint_up", "outpaint_up", 0, 1024, 8),
    Field("outpaint_down", "Down", "slider", 0, "img2img_outpaint_down", "outpaint_down", 0, 1024, 8),
    Field("outpaint_fill", "Begin with", "radio", "noise", "img2img_outpaint_fill", "outpaint_fill",
          choices=("noise", "edge"), labels=("noise of the picture's spectrum", "colours of the edge"), strict=True),
    Field("outpaint_noise_q", "Fall-off exponent", "slider", 1.0, "img2img_outpaint_noise_q", "outpaint_noise_q",
          0.0, 4.0, 0.01, help="Lower is more detail."),
    Field("outpaint_color_variation", "Color variation", "slider", 0.05, "img2img_outpaint_color_variation",
          "outpaint_color_variation", 0.0, 1.0, 0.01),
)


def begun(mode: str, stored: Mapping[str, Any], inputs: Inputs, *, grows: bool) -> dict[str, Any]:
    """Return ``init_images``, ``mask`` and ``depth_map`` for a mode, from the ids in a stored form.

    What was painted is merged in. A picture that ``grows`` needs no mask. Raises ``InvalidRequest`` where the picture
    or the mask is missing.
    """
    picture, mask, sketch = (known(stored.get(name), inputs) for name in ("init_image", "mask", "sketch"))
    if not picture:
        raise InvalidRequest("There is no picture to begin from.", "Drop one into the tab, or send one from another.")
    if mode in ("sketch", "inpaint_sketch") and sketch:
        mask = inputs.coverage(sketch).id
        picture = inputs.flattened(picture, sketch).id
    elif mode == "inpaint_sketch":
        mask = ""
    if mode not in INPAINTING:
        mask = ""
    elif not mask and not grows:
        hint = "Choose a mask." if mode == "inpaint_upload" else "Paint over what is to change."
        raise InvalidRequest("There is no mask.", hint)
    return {"init_images": (picture,), "mask": mask, "depth_map": known(stored.get("depth_map"), inputs)}


def remembered(mode: str, stored: Mapping[str, Any], inputs: Inputs) -> dict[str, str]:
    """Return infotext entries from which ``recalled`` finds the pictures of a stored form again."""
    used = {"init_image": True, "depth_map": True, "mask": mode in ("inpaint", "inpaint_upload"),
            "sketch": mode in ("sketch", "inpaint_sketch")}
    ids = {name: known(stored.get(name), inputs) for name, wanted in used.items() if wanted}
    return {key: {**ids, "mode": mode}[name] for key, name in SOURCES.items() if {**ids, "mode": mode}.get(name)}


def recalled(extras: Mapping[str, str], inputs: Inputs) -> dict[str, str]:
    """Return values of the form for the entries that name a job's pictures; nothing where the picture is gone."""
    found = {name: extras[key] for key, name in SOURCES.items() if key in extras}
    picture = known(found.pop("init_image", ""), inputs)
    if not picture:
        return {}
    mode = found.get("mode", "inpaint_upload" if found.get("mask") else "image")
    if mode not in MODES:
        return {}
    ids = {name: known(found.get(name), inputs) for name in ("mask", "sketch", "depth_map")}
    return {"mode": mode, "init_image": picture, **ids}


def known(key: Any, inputs: Inputs) -> str:
    """Return the id ``key``, empty where its picture is not stored."""
    try:
        inputs.path(str(key or ""))
    except NotFound:
        return ""
    return str(key)


def fitting(width: int, height: int) -> dict[str, int]:
    """Return the size for a picture that the form's sliders can show: multiples of 8, in its proportions if it can."""
    factor = min(max(1.0, MIN_SIDE / min(width, height)), MAX_SIDE / max(width, height))
    sides = {"width": width, "height": height}
    return {name: max(MIN_SIDE, min(MAX_SIDE, int(side * factor) // 8 * 8)) for name, side in sides.items()}


def scaled(width: int, height: int, scale: float) -> dict[str, int]:
    """Return the size of a picture of ``width`` by ``height`` pixels times ``scale``, in multiples of 8."""
    return {"width": int(width * scale) // 8 * 8, "height": int(height * scale) // 8 * 8}
