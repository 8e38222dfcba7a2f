import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.library.inputs import Inputs
from modules.web.image_fields import MODES, begun, fitting, recalled, remembered, scaled


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


@pytest.fixture
def stored(inputs):
    sketch = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    sketch.putpixel((1, 1), (0, 255, 0, 255))
    return {"init_image": inputs.add(Image.new("RGB", (8, 4), "red")).id, "sketch": inputs.add(sketch).id,
            "mask": inputs.add(Image.new("L", (8, 4), 255)).id}


def test_each_mode_takes_what_it_shows(inputs, stored) -> None:
    made = {mode: begun(mode, stored, inputs, grows=False) for mode in MODES}
    assert made["image"] == {"init_images": (stored["init_image"],), "mask": "", "depth_map": ""}
    for mode in ("inpaint", "inpaint_upload"):
        assert made[mode] == {"init_images": (stored["init_image"],), "mask": stored["mask"], "depth_map": ""}
    for mode in ("sketch", "inpaint_sketch"):
        with inputs.open(made[mode]["init_images"][0]) as picture:
            assert (picture.getpixel((1, 1)), picture.getpixel((0, 0))) == ((0, 255, 0), (255, 0, 0))
    assert made["sketch"]["mask"] == ""
    with inputs.open(made["inpaint_sketch"]["mask"]) as mask:
        assert (mask.mode, mask.getpixel((1, 1)), mask.getpixel((0, 0))) == ("L", 255, 0)


@pytest.mark.parametrize("mode", ["inpaint", "inpaint_sketch", "inpaint_upload"])
def test_without_a_mask_nothing_is_repainted_but_what_grows(inputs, stored, mode) -> None:
    only = {"init_image": stored["init_image"]}
    with pytest.raises(InvalidRequest, match="no mask"):
        begun(mode, only, inputs, grows=False)
    assert begun(mode, only, inputs, grows=True) == {
        "init_images": (stored["init_image"],), "mask": "", "depth_map": ""}


@pytest.mark.parametrize("key", [None, "", "0" * 32, "../x"])
def test_without_a_picture_there_is_nothing_to_begin_from(inputs, key) -> None:
    with pytest.raises(InvalidRequest, match="no picture to begin from"):
        begun("image", {"init_image": key}, inputs, grows=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_job_remembers_its_pictures(inputs, stored, mode) -> None:
    found = recalled(remembered(mode, stored, inputs), inputs)
    assert found["mode"] == mode and found["init_image"] == stored["init_image"]
    assert found["mask"] == (stored["mask"] if mode in ("inpaint", "inpaint_upload") else "")
    assert found["sketch"] == (stored["sketch"] if mode in ("sketch", "inpaint_sketch") else "")


@pytest.mark.parametrize(("masked", "mode"), [(False, "image"), (True, "inpaint_upload")])
def test_the_pictures_of_a_job_of_the_api_are_recalled(inputs, stored, masked, mode) -> None:
    entries = {"Init image": stored["init_image"]} | ({"Init mask": stored["mask"]} if masked else {})
    assert recalled(entries, inputs) == {"mode": mode, "init_image": stored["init_image"], "sketch": "",
                                         "mask": stored["mask"] if masked else "", "depth_map": ""}


def test_what_is_gone_is_not_recalled(inputs, stored) -> None:
    entries = remembered("inpaint", stored, inputs)
    inputs.path(stored["mask"]).unlink()
    assert recalled(entries, inputs)["mask"] == ""
    inputs.path(stored["init_image"]).unlink()
    assert recalled(entries, inputs) == {} == recalled({"Init image": "../x"}, inputs)


def test_sizes_are_multiples_of_8() -> None:
    for picture, expected in (((517, 300), (512, 296)), ((4096, 3072), (2048, 1536)), ((32, 40), (64, 80)),
                              ((1, 1), (64, 64)), ((9999, 1), (2048, 64))):
        assert fitting(*picture) == dict(zip(("width", "height"), expected, strict=True))
    assert scaled(500, 333, 1.5) == {"width": 744, "height": 496}
