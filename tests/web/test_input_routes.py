import io

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from modules.web.answers import add_error_answers
from modules.web.routes import router
from tests.web.running import fake_engine, make_app

OURS = {"x-darkroom": "page"}
RAW = OURS | {"content-type": "application/octet-stream"}
NOTHING = {"init_image": "", "mask": "", "sketch": "", "depth_map": ""}


@pytest.fixture
def app(tmp_path):
    built = make_app(tmp_path, fake_engine(tmp_path))
    yield built
    built.close()


@pytest.fixture
def client(app):
    site = FastAPI()
    add_error_answers(site)
    site.include_router(router(app), prefix="")
    return TestClient(site, raise_server_exceptions=False)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def brought(client, image: Image.Image) -> dict:
    return client.post("/darkroom/page/inputs", content=png(image), headers=RAW).json()


def test_a_picture_comes_back_as_it_was_brought(client) -> None:
    image = Image.linear_gradient("L").resize((20, 10))
    stored = brought(client, image)
    assert (stored["width"], stored["height"]) == (20, 10)
    answer = client.get(f"/darkroom/page/inputs/{stored['id']}")
    assert answer.headers["content-type"] == "image/png" and "immutable" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).tobytes() == image.tobytes()


def test_what_is_no_picture_is_refused(client, app) -> None:
    assert client.post("/darkroom/page/inputs", content=b"no", headers=RAW).status_code == 422
    assert client.post("/darkroom/page/inputs", content=png(Image.new("L", (1, 1)))).status_code == 403
    for key in ("0" * 32, "x", "..%2f..%2fdarkroom.sqlite3"):
        assert client.get(f"/darkroom/page/inputs/{key}").status_code == 404
    assert not app.folders.inputs.exists()


def test_the_form_keeps_ids_and_nothing_else_of_it_changes(client, app) -> None:
    app.forms.save("", "img2img", {"prompt": "a cat", "mask": "0" * 32})
    assert client.get("/darkroom/page/forms/img2img").json() == NOTHING
    mask = brought(client, Image.new("L", (2, 2), 255))["id"]
    answer = client.post("/darkroom/page/forms/img2img", json={"mask": mask}, headers=OURS)
    assert answer.json() == NOTHING | {"mask": mask} == client.get("/darkroom/page/forms/img2img").json()
    assert app.forms.load("", "img2img") == {"prompt": "a cat", "mask": mask}
    client.post("/darkroom/page/forms/img2img", json={"mask": ""}, headers=OURS)
    assert client.get("/darkroom/page/forms/img2img").json() == NOTHING


@pytest.mark.parametrize("tab, values, status", [
    ("img2img", {"prompt": "x"}, 422), ("img2img", {"mask": "0" * 32}, 404), ("img2img", {"mask": "../x"}, 404),
    ("img2img", {"mask": 5}, 422), ("attic", {"mask": ""}, 404),
])
def test_only_stored_pictures_go_into_forms_of_known_tabs(client, app, tab, values, status) -> None:
    assert client.post(f"/darkroom/page/forms/{tab}", json=values, headers=OURS).status_code == status
    assert app.forms.load("", tab) == {}


def test_a_picture_whose_file_is_gone_is_not_shown(client, app) -> None:
    key = brought(client, Image.new("RGB", (2, 2)))["id"]
    client.post("/darkroom/page/forms/img2img", json={"init_image": key}, headers=OURS)
    (app.folders.inputs / f"{key}.png").unlink()
    assert client.get("/darkroom/page/forms/img2img").json() == NOTHING
