"""The entries of image to image in an infotext, and the fields of a request that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RESIZE_MODES = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
FILLS = ("fill", "original", "latent noise", "latent nothing")
# Ids of the pictures that a job began from and, for one of the page, the mode of the tab.
SOURCES: Mapping[str, str] = MappingProxyType({
    "Init image": "init_image", "Init mask": "mask", "Init sketch": "sketch", "Init depth map": "depth_map",
    "Img2img mode": "mode",
})

_NUMBERS: Mapping[str, str] = MappingProxyType({
    "Noise multiplier": "initial_noise_multiplier", "Image CFG scale": "image_cfg_scale",
    "Mask blur x": "mask_blur_x", "Mask blur y": "mask_blur_y", "Mask rounding": "mask_round",
    "Masked area padding": "inpaint_full_res_padding", "Outpaint left": "outpaint_left", "Outpaint up": "outpaint_up",
    "Outpaint right": "outpaint_right", "Outpaint down": "outpaint_down", "Outpaint fill": "outpaint_fill",
    "Outpaint fall-off": "outpaint_noise_q", "Outpaint color variation": "outpaint_color_variation",
})
_NAMED: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType({
    "Resize mode": ("resize_mode", {name: str(index) for index, name in enumerate(RESIZE_MODES)}),
    "Masked content": ("inpainting_fill", {name: str(index) for index, name in enumerate(FILLS)}),
    "Mask mode": ("inpainting_mask_invert", {"Inpaint masked": "False", "Inpaint not masked": "True"}),
    "Inpaint area": ("inpaint_full_res", {"Whole picture": "False", "Only masked": "True"}),
    "Inpaint mode": ("inpaint_mode", {"Masked": "masked", "Differential diffusion": "differential"}),
})
KEYS = (*_NUMBERS, *_NAMED, "Mask blur")
# What the absence of these entries means, in A1111 and here.
ABSENT: Mapping[str, Any] = MappingProxyType({
    "resize_mode": 0, "initial_noise_multiplier": 1.0, "inpainting_fill": 1, "inpainting_mask_invert": False,
    "inpaint_full_res": False, "inpaint_full_res_padding": 32, "inpaint_mode": "masked", "mask_round": True,
    "outpaint_left": 0, "outpaint_up": 0, "outpaint_right": 0, "outpaint_down": 0,
})


def image_fields(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return what ``parameters`` set, as texts by field of a request; names that nobody writes are left out."""
    found = {field: parameters[key] for key, field in _NUMBERS.items() if key in parameters}
    if "Mask blur" in parameters:
        found |= {"mask_blur_x": parameters["Mask blur"], "mask_blur_y": parameters["Mask blur"]}
    for key, (field, values) in _NAMED.items():
        if parameters.get(key) in values:
            found[field] = values[parameters[key]]
    return found
