import pytest
from PIL import Image

from modules.core.request import Request
from modules.library.inputs import Inputs
from modules.web.hires import FIELDS, size_text
from modules.web.tabs.txt2img import FIELDS as FORM
from modules.web.tabs.txt2img import first_pass, upscaled
from tests.web.running import fake_engine, make_app

INFOTEXT = ("a castle\nNegative prompt: people\nSteps: 31, Sampler: Euler a, Schedule type: Karras, CFG scale: 5.5, "
            "Seed: 12, Size: 640x384, RNG: CPU, Denoising strength: 0.2, Hires upscale: 3, Hires upscaler: Nearest")


@pytest.mark.parametrize(("values", "text"), [
    ({}, "from <b>512x512</b> to <b>1024x1024</b>"),
    ({"width": 640, "hr_scale": 1.5}, "from <b>640x512</b> to <b>960x768</b>"),
    ({"width": 640, "hr_resize_x": 960}, "from <b>640x512</b> to <b>960x768</b>"),
    ({"hr_resize_x": 768, "hr_resize_y": 1024}, "from <b>512x512</b> to <b>768x1024</b>"),
    ({"width": None, "hr_scale": ""}, "from <b>512x512</b> to <b>1024x1024</b>"),
    ({"width": "6e"}, ""), ({"hr_scale": 99}, ""),
])
def test_the_sizes_of_both_passes_are_told(values, text) -> None:
    assert size_text(FORM, values) == text


def test_the_form_of_hires_fix_begins_as_a_request_does() -> None:
    for field in FIELDS:
        if field.target:
            assert field.default == getattr(Request(), field.target), field.name


def test_a_picture_is_made_again_with_the_hires_fix_of_the_form(tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    values = {"prompt": "else", "styles": ["x"], "batch_count": 5, "batch_size": 2, "hr_scale": 1.5,
              "hr_upscaler": "Lanczos", "denoising_strength": 0.5, "steps": 3, "width": 64, "refiner_enable": True,
              "refiner": "stand-in.safetensors"}
    made = upscaled(FORM, values, INFOTEXT, app)
    expected = {"prompt": "a castle", "negative_prompt": "people", "seed": 12, "steps": 31, "width": 640, "height": 384,
                "styles": (), "batch_count": 1, "batch_size": 1, "enable_hr": True, "hr_scale": 1.5,
                "hr_upscaler": "Lanczos", "denoising_strength": 0.5, "refiner_enable": False}
    assert {name: made[name] for name in expected} == expected
    app.close()


def test_only_a_picture_of_the_first_pass_takes_its_place(tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    picture = Inputs(app.folders.inputs).add(Image.new("RGB", (640, 384))).id
    assert first_pass({"width": 640, "height": 384}, picture, app) == picture
    assert first_pass({"width": 320, "height": 192}, picture, app) == ""
    assert first_pass({"width": 640, "height": 384}, "0" * 32, app) == ""
