from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.host.discover import discover
from modules.library.inputs import Inputs
from modules.web.form import restored
from modules.web.paste import paste
from modules.web.tabs import img2img, txt2img
from tests.web.running import fake_engine, make_app

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"


@pytest.fixture
def app(tmp_path):
    built = make_app(tmp_path, fake_engine(tmp_path))
    yield built
    built.close()


def picture(app, size=(96, 80)) -> str:
    return Inputs(app.folders.inputs).add(Image.new("RGB", size, "red")).id


def values(app, **given):
    return {**restored(img2img.form(app), {}), "init_image": picture(app), **given}


def test_every_field_is_laid_out_once(app) -> None:
    with gr.Blocks():
        controls = img2img.build(app)
    assert set(controls) == {field.name for field in controls.form}


def test_the_form_begins_as_a_request_but_for_a1111s_strength() -> None:
    for field in img2img.FIELDS:
        if field.target and field.name != "denoising_strength":
            assert field.default == getattr(Request(), field.target), field.name


def test_the_form_asks_for_a_picture_from_a_picture(app) -> None:
    asked = img2img.request(img2img.form(app), values(app, resize_mode=2, mask_blur=9, mask=picture(app),
                                                      mode="inpaint", inpainting_fill=3, mask_mode=True), app)
    assert (asked.kind, asked.resize_mode, asked.mask_blur_x, asked.mask_blur_y, asked.inpainting_fill,
            asked.inpainting_mask_invert, asked.denoising_strength) == ("img2img", 2, 9, 9, 3, True, 0.75)
    assert asked.mask and asked.init_images == (asked.parameters["Init image"],)


def test_the_size_is_the_pictures_times_the_scale(app) -> None:
    asked = img2img.request(img2img.form(app), values(app, size_by="by", scale=2.0, width=64), app)
    assert (asked.width, asked.height) == (192, 160)


def test_outpainting_counts_only_while_its_panel_is_open(app) -> None:
    for opened, expected in ((True, 64), (False, 0)):
        given = values(app, outpaint_left=64, outpaint_enable=opened)
        assert img2img.request(img2img.form(app), given, app).outpaint_left == expected


@pytest.mark.parametrize("given, said", [
    ({"init_image": ""}, "picture"), ({"mode": "inpaint"}, "mask"), ({"resize_mode": 9}, "Resize mode"),
    ({"mask_blur": -1}, "Mask blur"), ({"mode": "upside down"}, "Mode"),
])
def test_a_bad_form_is_refused(app, given, said) -> None:
    with pytest.raises(InvalidRequest, match=said):
        img2img.request(img2img.form(app), values(app, **given), app)


def test_an_infotext_brings_back_form_pictures_and_mask(app) -> None:
    mask, form = picture(app, (8, 8)), img2img.form(app)
    asked = img2img.request(form, values(app, mode="inpaint", mask=mask, inpaint_full_res=True, mask_blur=7), app)
    text = ("a\nSteps: 5, Sampler: Euler, CFG scale: 7, Mask blur: 7, Inpaint area: Only masked, "
            + ", ".join(f"{key}: {value}" for key, value in asked.parameters.items()))
    found = paste(form, text, app).values
    assert {name: found[name] for name in ("mode", "init_image", "mask", "mask_blur", "inpaint_full_res")} == {
        "mode": "inpaint", "init_image": asked.init_images[0], "mask": mask, "mask_blur": 7, "inpaint_full_res": True}


def test_a_sent_picture_brings_its_size_where_settings_say_so(app) -> None:
    body = {"init_image": picture(app, (500, 90)), "mode": "inpaint"}
    expected = {"init_image": body["init_image"], "mask": "", "sketch": "", "depth_map": "", "mode": "inpaint"}
    assert img2img.sent_picture(body, app) == expected | {"width": 496, "height": 88}
    body["init_image"] = picture(app, (4096, 3072))
    assert [img2img.sent_picture(body, app)[side] for side in ("width", "height")] == [2048, 1536]
    body["init_image"] = picture(app, (30, 60))
    assert [img2img.sent_picture(body, app)[side] for side in ("width", "height")] == [64, 128]
    expected["init_image"] = body["init_image"]
    app.settings.update({"send_size": False})
    assert img2img.sent_picture(body, app) == expected


def test_a_depth_map_goes_with_the_picture_and_comes_back(app) -> None:
    key = picture(app, (8, 8))
    asked = img2img.request(img2img.form(app), values(app, depth_map=key), app)
    assert asked.depth_map == key == asked.parameters["Init depth map"]
    assert img2img.request(img2img.form(app), values(app, depth_map="0" * 32), app).depth_map == ""


def test_a_panel_stands_only_in_the_tabs_where_it_does_something(tmp_path) -> None:
    found = discover([EXTENSIONS], tmp_path, {}, frozenset())
    built = make_app(tmp_path, fake_engine(tmp_path), found)
    built.close()
    panels = {tab: {field.name.partition("/")[0] for field in form(built) if "/" in field.name}
              for tab, form in (("txt2img", txt2img.form), ("img2img", img2img.form))}
    assert panels["img2img"] == panels["txt2img"] | {"soft_inpainting"} > panels["txt2img"] >= {"guidance"}
