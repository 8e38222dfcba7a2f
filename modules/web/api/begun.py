"""What ``/sdapi/v1/img2img`` begins from: pictures, a mask, and the two scripts that make a picture larger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from modules.core.errors import InvalidRequest, NotFound
from modules.library.inputs import Inputs
from modules.web.api.pictures import decoded
from modules.web.api.sdapi_models import Img2ImgRequest

PLAIN = ("resize_mode", "image_cfg_scale", "initial_noise_multiplier")
MASKING = ("mask_blur_x", "mask_blur_y", "mask_round", "inpainting_fill", "inpaint_full_res",
           "inpaint_full_res_padding")
SIDES = ("left", "right", "up", "down")
CELLS = 64
MK2, POOR = "outpainting mk2", "poor man's outpainting"
FILLS = ("fill", "original", "latent noise", "latent nothing")


def begun(body: Img2ImgRequest, app: Any, values: Mapping[str, Any], pasted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that only image to image has; pictures are stored and named by their ids.

    ``values`` are its other fields, ``pasted`` what an infotext says. Fewer pictures than the batch size make a
    smaller batch, as in A1111. Raises ``NotFound`` without a picture, and ``InvalidRequest`` or ``Forbidden`` for one
    that cannot be had.
    """
    images = stored(body.init_images or (), app)
    if not images:
        raise NotFound("Init image not found.", "Send one or more pictures in init_images.")
    found: dict[str, Any] = {"kind": "img2img", "init_images": images, **_given(body, PLAIN, pasted)}
    if 1 < len(images) <= values["batch_size"]:
        found["batch_size"] = len(images)
    script = SCRIPTS.get((body.script_name or "").strip().lower())
    if script:
        first = Inputs(app.folders.inputs).get(images[0])
        found |= _whole_cells(script(body.script_args or []), first.width, first.height)
    elif body.mask:
        found |= masking(body, pasted)
        found |= {name: stored((picture,), app)[0]
                  for name, picture in (("mask", body.mask), ("latent_mask", body.latent_mask)) if picture}
    if body.depth_map:
        (found["depth_map"],) = stored((body.depth_map,), app)
    return found


def masking(body: Img2ImgRequest, pasted: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the mask is used; null means A1111's default."""
    defaults = {name: Img2ImgRequest.model_fields[name].default for name in MASKING}
    found = defaults | _given(body, (*MASKING, "inpainting_mask_invert"), pasted)
    found["inpainting_mask_invert"] = bool(found.get("inpainting_mask_invert"))
    if body.mask_blur is not None:
        found |= {"mask_blur_x": body.mask_blur, "mask_blur_y": body.mask_blur}
    return found


def mk2(arguments: Sequence[Any]) -> dict[str, Any]:
    """Return the fields for Outpainting mk2: pixels, mask blur, directions, fall-off exponent, colour variation.

    A text before these, the place of its help in A1111, is passed over; what is missing has A1111's default.
    """
    given = arguments[1:] if arguments and (arguments[0] is None or isinstance(arguments[0], str)) else arguments
    pixels, blur, sides, power, variation = _filled(MK2, given, (128, 8, list(SIDES), 1.0, 0.05))
    # Sampling reaches two blurs into the picture there.
    return _grown(MK2, pixels, sides) | _blurred(MK2, blur, 2) | {
        "outpaint_fill": "noise", "outpaint_noise_q": _number(MK2, power),
        "outpaint_color_variation": _number(MK2, variation), "inpainting_fill": 1, "inpaint_full_res": False}


def poor_mans(arguments: Sequence[Any]) -> dict[str, Any]:
    """Return the fields for Poor man's outpainting: pixels, mask blur, masked content (name or index), directions."""
    pixels, blur, fill, sides = _filled(POOR, arguments, (128, 4, 0, list(SIDES)))
    fill = FILLS.index(fill) if fill in FILLS else _whole(POOR, fill)
    return _grown(POOR, pixels, sides) | _blurred(POOR, blur, 2) | {
        "outpaint_fill": "edge", "inpainting_fill": fill, "inpaint_full_res": False}


SCRIPTS: Mapping[str, Callable[[Sequence[Any]], dict[str, Any]]] = MappingProxyType({MK2: mk2, POOR: poor_mans})


def stored(pictures: Sequence[str], app: Any) -> tuple[str, ...]:
    """Store pictures that were sent and return their ids; raises ``InvalidRequest`` or ``Forbidden`` for a bad one."""
    settings, inputs = app.settings.get(), Inputs(app.folders.inputs)
    return tuple(inputs.put(decoded(picture, settings)).id for picture in pictures)


def _given(body: Img2ImgRequest, names: Sequence[str], pasted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was sent, else what the infotext says, else A1111's defaults, null among them left out."""
    sent = {name: getattr(body, name) for name in names if getattr(body, name) is not None}
    return {name: value for name, value in sent.items() if name not in pasted or name in body.model_fields_set} | {
        name: pasted[name] for name in names if name in pasted and name not in body.model_fields_set}


def _filled(script: str, given: Sequence[Any], defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(given) > len(defaults):
        raise InvalidRequest(f"script_args: {script} takes {len(defaults)} values, not {len(given)}.")
    return (*given, *defaults[len(given):])


def _grown(script: str, pixels: Any, sides: Any) -> dict[str, int]:
    wanted = sides if isinstance(sides, list) else [sides]
    if not wanted or not all(isinstance(side, str) and side.lower() in SIDES for side in wanted):
        raise InvalidRequest(f"script_args: {script} takes directions: a list of {', '.join(SIDES)}.")
    return {f"outpaint_{side.lower()}": _whole(script, pixels) for side in wanted}


def _blurred(script: str, blur: Any, times: int) -> dict[str, int]:
    return {name: times * _whole(script, blur) for name in ("mask_blur_x", "mask_blur_y")}


def _whole_cells(grown: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """Return ``grown`` for a picture of this size: it keeps it, and grows more, to multiples of 64, as in A1111."""
    made = {**grown, "width": width, "height": height, "resize_mode": 0}
    for side, low, high in ((width, "outpaint_left", "outpaint_right"), (height, "outpaint_up", "outpaint_down")):
        asked = grown.get(low, 0), grown.get(high, 0)
        more = -(side + sum(asked)) % CELLS + sum(asked)
        if sum(asked):
            made[low] = asked[0] * more // sum(asked)
            made[high] = more - made[low]
    return made


def _whole(script: str, value: Any) -> int:
    number = _number(script, value)
    if number != int(number):
        raise InvalidRequest(f"script_args: {script} takes a whole number, not {value!r:.60}.")
    return int(number)


def _number(script: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise InvalidRequest(f"script_args: {script} takes a number, not {value!r:.60}.")
    return float(value)
