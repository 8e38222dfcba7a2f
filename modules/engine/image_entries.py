"""The infotext's entries of image to image, inpainting and outpainting. Pure."""

from __future__ import annotations

from modules.core.request import Request, outpaint_margins, repaints_a_part
from modules.library.paste_image import FILLS, RESIZE_MODES

IMAGE = "Init image"


def image_entries(request: Request) -> dict[str, str]:
    """Return what image to image does otherwise than usual, by A1111's names where it has one."""
    if request.kind != "img2img":
        return {}
    entries = {}
    if request.resize_mode:
        entries["Resize mode"] = RESIZE_MODES[request.resize_mode]
    if request.initial_noise_multiplier != 1:
        entries["Noise multiplier"] = f"{request.initial_noise_multiplier:g}"
    if repaints_a_part(request):
        entries |= _mask_entries(request)
    return entries | _outpaint_entries(request)


def source_entries(request: Request, index: int) -> dict[str, str]:
    """Return the ids of the pictures that the picture ``index`` of a request begins from, where it does not say so.

    The page does: it knows what was painted on which picture.
    """
    if not request.init_images or IMAGE in request.parameters:
        return {}
    ids = {IMAGE: request.init_images[index % len(request.init_images)], "Init mask": request.mask,
           "Init depth map": request.depth_map}
    return {name: key for name, key in ids.items() if key}


def _mask_entries(request: Request) -> dict[str, str]:
    x, y = request.mask_blur_x, request.mask_blur_y
    entries = {"Mask blur": str(x)} if x == y else {"Mask blur x": str(x), "Mask blur y": str(y)}
    if not request.mask_round:
        entries["Mask rounding"] = "False"
    if request.inpainting_mask_invert:
        entries["Mask mode"] = "Inpaint not masked"
    if request.inpaint_full_res:
        entries |= {"Inpaint area": "Only masked", "Masked area padding": str(request.inpaint_full_res_padding)}
    if request.inpainting_fill != 1:
        entries["Masked content"] = FILLS[request.inpainting_fill]
    if request.inpaint_mode == "differential":
        entries["Inpaint mode"] = "Differential diffusion"
    return entries


def _outpaint_entries(request: Request) -> dict[str, str]:
    margins = outpaint_margins(request)
    if not any(margins):
        return {}
    entries = {f"Outpaint {side}": str(pixels)
               for side, pixels in zip(("left", "up", "right", "down"), margins, strict=True) if pixels}
    if request.outpaint_fill == "edge":
        return entries | {"Outpaint fill": "edge"}
    return entries | {"Outpaint fall-off": f"{request.outpaint_noise_q:g}",
                      "Outpaint color variation": f"{request.outpaint_color_variation:g}"}
