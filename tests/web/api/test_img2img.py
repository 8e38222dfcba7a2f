import base64
import io
import json

import pytest
from PIL import Image

from modules.core.request import Request
from modules.library.inputs import Inputs
from modules.web.api.sdapi_models import Img2ImgRequest

SMALL = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}
# A1111's fields and defaults, from its reference; what both routes have is tested with txt2img.
DEFAULTS = {
    "init_images": None, "resize_mode": 0, "image_cfg_scale": None, "mask": None, "mask_blur_x": 4, "mask_blur_y": 4,
    "mask_blur": None, "mask_round": True, "inpainting_fill": 0, "inpaint_full_res": True,
    "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0, "initial_noise_multiplier": None, "latent_mask": None,
    "include_init_images": False, "denoising_strength": 0.75, "steps": 50,
}


def png(size=(96, 64), colour="red", mode="RGB") -> str:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def ask(client, **sent):
    return client.post("/sdapi/v1/img2img", json={**SMALL, "init_images": [png()], **sent})


def asked(app) -> Request:
    return app.jobs()[0].request


def test_every_field_of_a1111_is_there_with_its_default() -> None:
    known = {name: field.default for name, field in Img2ImgRequest.model_fields.items()}
    assert {name: known[name] for name in DEFAULTS} == DEFAULTS
    assert not {"enable_hr", "firstphase_width", "hr_scale"} & set(known)


def test_a_picture_is_the_beginning(client, app) -> None:
    answer = ask(client, init_images=[f"data:image/png;base64,{png((96, 64), 'blue')}"], resize_mode=2,
                 denoising_strength=0.4, image_cfg_scale=2, initial_noise_multiplier=0.9)
    assert answer.status_code == 200, answer.text
    request = asked(app)
    (key,) = request.init_images
    with Inputs(app.folders.inputs).open(key) as stored:
        assert (stored.size, stored.getpixel((0, 0))) == ((96, 64), (0, 0, 255))
    assert (request.kind, request.resize_mode, request.denoising_strength, request.image_cfg_scale,
            request.initial_noise_multiplier, request.mask) == ("img2img", 2, 0.4, 2.0, 0.9, "")
    content = answer.json()
    assert len(content["images"]) == 1 and json.loads(content["info"])["denoising_strength"] == 0.4
    assert content["parameters"]["init_images"] is None and content["parameters"]["resize_mode"] == 2


def test_a_mask_takes_a1111s_defaults_and_its_own_values(client, app) -> None:
    ask(client, mask=png(colour=255, mode="L"))
    request = asked(app)
    assert request.mask and (request.inpainting_fill, request.inpaint_full_res, request.inpaint_full_res_padding,
                             request.mask_blur_x, request.mask_blur_y, request.inpainting_mask_invert) == (
        0, True, 0, 4, 4, False)
    ask(client, mask=png(colour=255, mode="L"), mask_blur=9, mask_blur_x=1, inpainting_fill=2, inpaint_full_res=False,
        inpaint_full_res_padding=16, inpainting_mask_invert=1, mask_round=False)
    request = asked(app)
    assert (request.mask_blur_x, request.mask_blur_y, request.inpainting_fill, request.inpaint_full_res,
            request.inpaint_full_res_padding, request.inpainting_mask_invert, request.mask_round) == (
        9, 9, 2, False, 16, True, False)


def test_pictures_come_back_where_they_are_wanted(client) -> None:
    picture, mask = png(), png(colour=255, mode="L")
    told = ask(client, init_images=[picture], mask=mask, include_init_images=True).json()["parameters"]
    assert (told["init_images"], told["mask"]) == ([picture], mask)
    told = ask(client, init_images=[picture], mask=mask).json()["parameters"]
    assert (told["init_images"], told["mask"]) == (None, None)


def test_an_infotext_fills_what_is_not_sent(client, app) -> None:
    text = ("a dog\nSteps: 9, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x64, Denoising strength: 0.3, "
            "Mask blur: 11, Mask mode: Inpaint not masked, Masked content: latent nothing, "
            "Resize mode: Crop and resize")
    sent = {"init_images": [png()], "mask": png(colour=255, mode="L"), "infotext": text, "inpainting_fill": 1}
    assert client.post("/sdapi/v1/img2img", json=sent).status_code == 200
    request = asked(app)
    assert (request.prompt, request.steps, request.denoising_strength, request.mask_blur_x, request.resize_mode,
            request.inpainting_mask_invert, request.inpainting_fill) == ("a dog", 9, 0.3, 11, 1, True, 1)


def test_fewer_pictures_than_the_batch_size_make_a_smaller_batch(client, app) -> None:
    ask(client, init_images=[png(), png(colour="blue")], batch_size=4)
    assert (len(asked(app).init_images), asked(app).batch_size) == (2, 2)
    ask(client, batch_size=4)
    assert (len(asked(app).init_images), asked(app).batch_size) == (1, 4)


@pytest.mark.parametrize("name, arguments, expected", [
    ("Outpainting mk2", [], {"outpaint_left": 144, "outpaint_right": 144, "outpaint_up": 128, "outpaint_down": 128,
                             "mask_blur_x": 16, "outpaint_noise_q": 1.0, "outpaint_color_variation": 0.05}),
    ("outpainting mk2", ["", 64, 4, ["left", "up"], 1.5, 0.1], {
        "outpaint_left": 96, "outpaint_right": 0, "outpaint_up": 64, "outpaint_down": 0, "mask_blur_y": 8,
        "outpaint_noise_q": 1.5, "outpaint_color_variation": 0.1, "outpaint_fill": "noise", "inpainting_fill": 1}),
    ("Poor man's outpainting", [24, 2, "latent noise", ["down"]], {
        "outpaint_down": 64, "outpaint_up": 0, "mask_blur_x": 4, "inpainting_fill": 2, "outpaint_fill": "edge"}),
    ("poor man's outpainting", [24, 2, 0, ["right"]], {"outpaint_right": 32, "inpainting_fill": 0}),
])
def test_a1111s_scripts_make_the_picture_larger(client, app, name, arguments, expected) -> None:
    assert ask(client, script_name=name, script_args=arguments).status_code == 200
    assert {field: getattr(asked(app), field) for field in expected} == expected


@pytest.mark.parametrize("size, sides, grown", [
    # (picture), directions of 64 pixels each: (left, up, right, down) by A1111's arithmetic
    ((128, 192), ["left"], (64, 0, 0, 0)), ((100, 90), ["left", "right"], (78, 0, 78, 0)),
    ((100, 90), ["up", "down"], (0, 83, 0, 83)), ((65, 64), ["left", "right", "down"], (95, 0, 96, 64)),
])
def test_a_script_keeps_the_size_of_the_picture_and_needs_no_mask(client, app, size, sides, grown) -> None:
    sent = {"init_images": [png(size=size)], "mask": png(), "width": 64, "height": 64, "resize_mode": 3}
    for script in ("Outpainting mk2", "Poor man's outpainting"):
        values = ["", 64, 0, sides] if script == "Outpainting mk2" else [64, 0, 0, sides]
        assert ask(client, **sent, script_name=script, script_args=values).status_code == 200
        request = asked(app)
        assert (request.width, request.height, request.resize_mode, request.mask) == (*size, 0, "")
        assert (request.outpaint_left, request.outpaint_up, request.outpaint_right, request.outpaint_down) == grown


def test_a_mask_for_the_latent_goes_with_a_mask(client, app) -> None:
    sent = {"mask": png(mode="L"), "latent_mask": png(colour=255, mode="L")}
    assert ask(client, **sent).status_code == 200
    assert asked(app).latent_mask and asked(app).latent_mask != asked(app).mask
    assert ask(client, latent_mask=sent["latent_mask"]).status_code == 200 and not asked(app).latent_mask


@pytest.mark.parametrize("sent, status, said", [
    ({"init_images": None}, 404, "Init image not found"), ({"init_images": []}, 404, "Init image not found"),
    ({"init_images": ["%%%"]}, 422, "base64"), ({"init_images": ["bm8gcGljdHVyZQ=="]}, 422, "no picture"),
    ({"init_images": ["http://127.0.0.1/a.png"]}, 403, "local network"), ({"mask": "aGVsbG8="}, 422, "no picture"),
    ({"init_images": [png(), png()], "batch_size": 1}, 422, "2 pictures"), ({"resize_mode": 7}, 422, "resize_mode"),
    ({"inpainting_fill": 9, "mask": png()}, 422, "inpainting_fill"),
    ({"denoising_strength": 2}, 422, "denoising_strength"),
    ({"mask": png(), "latent_mask": "aGVsbG8="}, 422, "no picture"), ({"script_name": "SD upscale"}, 422, "SD upscale"),
    ({"script_name": "outpainting mk2", "script_args": ["", "many"]}, 422, "number"),
    ({"script_name": "outpainting mk2", "script_args": [8, 8, ["north"]]}, 422, "directions"),
    ({"script_name": "poor man's outpainting", "script_args": [8] * 9}, 422, "4 values"),
])
def test_what_cannot_be_begun_is_said(client, app, sent, status, said) -> None:
    answer = ask(client, **sent)
    assert answer.status_code == status and said in answer.json()["detail"], answer.text
    assert app.jobs() == []


def test_a_job_of_our_own_api_begins_from_a_stored_picture(client, app) -> None:
    data = base64.b64decode(png((80, 72)))
    stored = client.post("/darkroom/v1/inputs", content=data, headers={"content-type": "application/octet-stream"})
    key = stored.json()["id"]
    assert stored.json() == {"id": key, "width": 80, "height": 72}
    assert Image.open(io.BytesIO(client.get(f"/darkroom/v1/inputs/{key}").content)).size == (80, 72)
    answer = client.post("/darkroom/v1/jobs", json={**SMALL, "kind": "img2img", "init_images": [key], "mask": key})
    assert answer.status_code == 202, answer.text
    assert (asked(app).init_images, asked(app).mask) == ((key,), key)
    gone = client.post("/darkroom/v1/jobs", json={**SMALL, "kind": "img2img", "init_images": ["0" * 32]})
    assert gone.status_code == 404 and "no longer stored" in gone.json()["message"]


def test_a_depth_map_is_stored_and_named(client, app) -> None:
    assert ask(client, depth_map=png((10, 10), "white", "L")).status_code == 200
    assert Inputs(app.folders.inputs).open(asked(app).depth_map).size == (10, 10)
    assert ask(client, depth_map="no picture").status_code == 422
