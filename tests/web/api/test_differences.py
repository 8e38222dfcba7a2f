import io

import pytest
from PIL import Image

from modules.imaging.bars import WIDTH
from tests.fixtures.fake_engine import write_stand_in_checkpoint

ROOT = "/darkroom/v1/differences"


@pytest.fixture
def job(client, app):
    for name in "ab":
        write_stand_in_checkpoint(app.folders.checkpoints[0], f"{name}.safetensors")
    answer = client.post(ROOT, json={"model_a": "a", "model_b": "b.safetensors"})
    assert answer.status_code == 202 and answer.headers["location"].endswith(answer.json()["id"])
    return app.wait(answer.json()["id"], 10)


def test_a_comparison_is_queued_and_has_numbers(job):
    assert job.request.kind == "difference" and job.request.title == "b.safetensors against a.safetensors"
    assert job.result["model_a"] == "a.safetensors" and job.result["blocks"][1]["difference"] == 0.25


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_its_picture_is_a_png(client, job, theme):
    answer = client.get(f"{ROOT}/{job.id}/picture", params={"theme": theme})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.width) == ("PNG", WIDTH)
        assert (sum(image.getpixel((2, 2))) < 200) == (theme == "dark")


def test_what_is_no_comparison_has_no_picture(client, app):
    other = app.wait(client.post("/darkroom/v1/jobs", json={"steps": 1, "width": 64, "height": 64}).json()["id"], 10)
    assert client.get(f"{ROOT}/{other.id}/picture").status_code == 404
    assert client.get(f"{ROOT}/none/picture").status_code == 404


@pytest.mark.parametrize("body, status", [
    ({"model_a": "stand-in", "model_b": ""}, 422), ({"model_a": "stand-in", "model_b": "none"}, 404),
    ({"model_a": "stand-in"}, 422), ({"model_a": "stand-in", "model_b": "stand-in", "path": "x"}, 422)])
def test_bad_comparisons_are_refused(client, app, body, status):
    assert client.post(ROOT, json=body).status_code == status and app.jobs() == []
