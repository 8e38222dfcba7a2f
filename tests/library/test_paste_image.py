import pytest

from modules.core.request import Request
from modules.engine.image_entries import image_entries
from modules.library.infotext import format, parse
from modules.library.paste import to_request_fields
from modules.library.paste_image import ABSENT, image_fields

BASE = {"Steps": "20", "Sampler": "Euler a", "CFG scale": "7.5", "Seed": "123"}
KEY = "0" * 32


@pytest.mark.parametrize("fields", [
    {}, {"resize_mode": 2, "initial_noise_multiplier": 0.8}, {"mask": KEY, "mask_blur_x": 8, "mask_blur_y": 8},
    {"mask": KEY, "mask_blur_x": 1, "mask_blur_y": 0, "mask_round": False, "inpainting_mask_invert": True},
    {"mask": KEY, "inpaint_full_res": True, "inpaint_full_res_padding": 48, "inpainting_fill": 3},
    {"mask": KEY, "inpaint_mode": "differential"}, {"outpaint_left": 64, "outpaint_fill": "edge"},
    {"outpaint_up": 8, "outpaint_down": 16, "outpaint_noise_q": 1.5, "outpaint_color_variation": 0.2},
])
def test_what_is_written_beside_a_picture_is_read_again(fields) -> None:
    request = Request(kind="img2img", init_images=(KEY,), **fields)
    read = to_request_fields(parse(format("a", "", BASE | image_entries(request))))
    assert read.skipped == () and read.extras == {}
    assert {name: read.fields.get(name, getattr(Request(), name)) for name in fields if name != "mask"} == {
        name: value for name, value in fields.items() if name != "mask"}
    assert {name: read.fields[name] for name in ABSENT} == {name: getattr(request, name) for name in ABSENT}


def test_names_that_nobody_writes_are_passed_over() -> None:
    assert image_fields({"Resize mode": "Sideways", "Masked content": "lava", "Mask mode": "Inpaint not masked"}) == {
        "inpainting_mask_invert": "True"}
