import base64
import io
import re

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def encoded(width=20, height=10, infotext=""):
    info, buffer = PngInfo(), io.BytesIO()
    if infotext:
        info.add_text("parameters", infotext)
    Image.new("RGB", (width, height), "red").save(buffer, "PNG", pnginfo=info)
    return base64.b64encode(buffer.getvalue()).decode()


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def post(client, route, **body):
    return client.post(f"/sdapi/v1/{route}", json=body)


# As the Python client webuiapi sends it.
SINGLE = {"resize_mode": 0, "show_extras_results": True, "gfpgan_visibility": 0, "codeformer_visibility": 0,
          "codeformer_weight": 0, "upscaling_resize": 2, "upscaling_resize_w": 512, "upscaling_resize_h": 512,
          "upscaling_crop": True, "upscaler_1": "Lanczos", "upscaler_2": "None", "extras_upscaler_2_visibility": 0,
          "upscale_first": False}


def test_a_single_picture(client, app):
    answer = post(client, "extra-single-image", **SINGLE, image=encoded(infotext="a cat\nSteps: 1, Seed: 2, Size: 8x8"))
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"html_info", "image"} and opened(answer.json()["image"]).size == (40, 20)
    (job,) = app.jobs()
    assert job.request.kind == "extras" and not job.request.save_images
    assert job.images[0].infotext.endswith("Postprocess upscale by: 2, Postprocess upscaler: Lanczos")
    assert "Steps: 1" in job.images[0].infotext


def test_defaults_are_those_of_a1111(client):
    plain = opened(post(client, "extra-single-image", image=encoded()).json()["image"])
    assert plain.size == (20, 10)
    to = post(client, "extra-single-image", image=encoded(), resize_mode=1, upscaler_1="lanczos", upscaling_crop=False)
    assert opened(to.json()["image"]).size == (1024, 512)


def test_a_batch_without_its_broken_picture(client):
    pictures = [{"data": encoded(20 + i), "name": f"{i}.png"} for i in range(3)]
    pictures.insert(1, {"data": base64.b64encode(b"text").decode(), "name": "broken.png"})
    answer = post(client, "extra-batch-images", **SINGLE, imageList=pictures).json()
    assert [opened(image).size for image in answer["images"]] == [(40, 20), (42, 20), (44, 20)]
    assert answer["html_info"].startswith("broken.png was skipped: The picture cannot be read")


@pytest.mark.parametrize("change, words", [
    ({"upscaler_1": "Lanxzos"}, "Use .*Lanczos"), ({"upscaler_1": "Latent"}, "works inside a generation"),
    ({"upscaling_resize": 0}, "upscaling_resize"), ({"upscaling_resize": 1000}, "upscaling_resize"),
    ({"image": ""}, "no picture"), ({"image": base64.b64encode(b"text").decode()}, "cannot be read"),
    ({"gfpgan_visibility": 1}, "GFPGANv1.4.pth.*GFPGAN"), ({"codeformer_visibility": 0.1}, "codeformer"),
    ({"codeformer_weight": 2}, "codeformer_weight"), ({"resize_mode": 1, "upscaling_resize_w": 32_768}, "too large"),
    ({"extras_upscaler_2_visibility": -1}, "visibility"),
])
def test_what_cannot_be_done_is_said(client, change, words):
    answer = post(client, "extra-single-image", **{"image": encoded(), **SINGLE, **change})
    assert answer.status_code == 422
    assert re.search(words, f"{answer.json()['message']} {answer.json().get('hint', '')}"), answer.text


def test_face_restorers_are_listed_and_used_where_their_files_are(client, app):
    assert client.get("/sdapi/v1/face-restorers").json() == []
    place = app.folders.models_dir / "GFPGAN"
    place.mkdir(parents=True)
    (place / "GFPGANv1.4.pth").write_bytes(b"x")
    assert client.get("/sdapi/v1/face-restorers").json() == []
    answer = post(client, "extra-single-image", **{**SINGLE, "image": encoded(), "gfpgan_visibility": 0.5})
    assert answer.status_code == 422 and "detection_Resnet50_Final.pth" in answer.json()["message"]
    (place / "detection_Resnet50_Final.pth").write_bytes(b"x")
    assert client.get("/sdapi/v1/face-restorers").json() == [{"name": "GFPGAN", "cmd_dir": str(place)}]
    answer = post(client, "extra-single-image", **{**SINGLE, "image": encoded(), "gfpgan_visibility": 0.5,
                                                   "codeformer_weight": 0.2})
    assert answer.status_code == 200, answer.text
    (job,) = app.jobs()
    assert (job.request.values["gfpgan_visibility"], job.request.values["upscale_first"]) == (0.5, False)
    assert "GFPGAN visibility: 0.5" in job.images[0].infotext and "weight" not in job.images[0].infotext


def test_files_of_upscalers_are_listed(client, app):
    place = app.folders.esrgan[0]
    place.mkdir(parents=True)
    for name in ("RealESRGAN_x2plus.pth", "4x-UltraSharp.pth"):
        (place / name).write_bytes(b"x")
    listed = {one["name"]: one for one in client.get("/sdapi/v1/upscalers").json()}
    assert list(listed)[:4] == ["None", "Lanczos", "Nearest", "Bicubic"]
    assert listed["Lanczos"]["model_path"] is None and listed["4x-UltraSharp"]["scale"] == 4
    assert listed["R-ESRGAN 2x+"] == {"name": "R-ESRGAN 2x+", "model_name": "RealESRGAN_x2plus", "model_url": None,
                                      "model_path": str(place / "RealESRGAN_x2plus.pth"), "scale": 2}
    real = {one["name"]: one for one in client.get("/sdapi/v1/realesrgan-models").json()}
    assert real["R-ESRGAN 2x+"] == {"name": "R-ESRGAN 2x+", "path": str(place / "RealESRGAN_x2plus.pth"), "scale": 2}
    assert "4x-UltraSharp" not in real
    native = client.get("/darkroom/v1/upscalers").json()
    assert {"name": "4x-UltraSharp", "space": "pixels"} in native
