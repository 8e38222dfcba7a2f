import io

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.extras import Extras, Source
from modules.core.request import Request
from modules.web.answers import add_error_answers
from modules.web.routes import router
from tests.web.running import fake_engine, make_app

RAW = {"x-darkroom": "page", "content-type": "application/octet-stream"}
PAGE = "/darkroom/page"


@pytest.fixture
def app(tmp_path):
    built = make_app(tmp_path, fake_engine(tmp_path))
    built.start()
    yield built
    built.close()


@pytest.fixture
def client(app):
    site = FastAPI()
    add_error_answers(site)
    site.include_router(router(app), prefix="")
    return TestClient(site, raise_server_exceptions=False)


def png(colour="red"):
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("parameters", "a cat")
    Image.new("RGB", (20, 10), colour).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_a_picture_is_kept_with_its_name_and_infotext(client, app):
    assert client.get(f"{PAGE}/source").json()["id"] == ""
    app.forms.save("", "extras", {"mode": "batch", "upscaler_1": "Lanczos"})
    answer = client.post(f"{PAGE}/source?name=cat.png", content=png(), headers=RAW).json()
    assert (answer["name"], answer["width"], answer["height"]) == ("cat.png", 20, 10)
    assert client.get(f"{PAGE}/source").json() == answer
    stored = app.forms.load("", "extras")
    assert stored["source"] == {"image": answer["id"], "name": "cat.png", "infotext": "a cat"}
    assert (stored["mode"], stored["upscaler_1"]) == ("single", "Lanczos")
    (app.folders.inputs / f"{answer['id']}.png").unlink()
    assert client.get(f"{PAGE}/source").json()["id"] == ""
    assert client.post(f"{PAGE}/source/clear", headers={"x-darkroom": "page"}).json()["id"] == ""
    assert app.forms.load("", "extras")["source"] is None


def test_what_is_no_picture_is_refused(client, app):
    assert client.post(f"{PAGE}/source?name=x", content=b"no", headers=RAW).status_code == 422
    assert "source" not in app.forms.load("", "extras")


def test_the_batch_of_each_tab_is_its_own(client):
    for tab in ("img2img", "extras"):
        client.post(f"{PAGE}/batch?tab={tab}&name={tab}.png", content=png(), headers=RAW)
        assert client.get(f"{PAGE}/batch?tab={tab}").json()["names"] == [f"{tab}.png"]
    client.post(f"{PAGE}/batch/clear?tab=extras", headers={"x-darkroom": "page"})
    assert client.get(f"{PAGE}/batch?tab=extras").json()["names"] == []
    assert client.get(f"{PAGE}/batch").json()["names"] == ["img2img.png"]
    assert client.get(f"{PAGE}/batch?tab=nowhere").status_code == 404


def test_a_result_knows_what_it_was_made_from(client, app):
    key = client.post(f"{PAGE}/source?name=cat.png", content=png("blue"), headers=RAW).json()["id"]
    job = app.wait(app.submit_extras(Extras((Source(key),), upscaler_1="Nearest")).id, 10)
    answer = client.get(f"{PAGE}/jobs/{job.id}/pictures/0/source")
    assert Image.open(io.BytesIO(answer.content)).size == (20, 10)
    assert client.get(f"{PAGE}/jobs/{job.id}/pictures/1/source").status_code == 404
    other = app.wait(app.submit(Request(steps=1, width=64, height=64)).id, 10)
    assert client.get(f"{PAGE}/jobs/{other.id}/pictures/0/source").status_code == 404
