"""What extensions add to the page: tabs, scripts, addresses."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from modules.core.errors import PluginFailed
from modules.core.request import Request
from modules.host.discover import Found
from modules.host.registry import Host
from modules.launcher.flags import Flags
from modules.plugin import Context, PageTab, Plugin, Route, Sampler
from modules.web.api.mount import add_api
from modules.web.head import head
from modules.web.page import blocks
from tests.fixtures import fake_engine
from tests.fixtures.fake_engine import write_stand_in_checkpoint


class Doubled:
    """An upscaler that only knows its name."""

    name = "My upscaler"

    def upscale(self, image, width, height):
        raise ValueError("it never works")


def failing_sampler(*given, **options):
    raise ValueError("it never works")


class Paged(Plugin):
    """Has a tab and answers with what it was asked."""

    id = name = "paged"

    def routes(self):
        return (Route("/paged", lambda asked: {**asked.query, "variant": asked.variant}),
                Route("/paged", lambda asked: asked.body, "POST"),
                Route("/sdapi/v1/embeddings", lambda asked: {"loaded": {"mine": {}}, "skipped": {}}),
                Route("/sdapi/v1/samplers", lambda asked: "taken over"))

    def upscalers(self):
        return (Doubled(),)

    def samplers(self):
        return (Sampler("My sampler", failing_sampler, ("mine",)),)

    def tabs(self):
        return (PageTab("My tab", "<b id='mine'>here</b>", "alert('</script>')"),)


@pytest.fixture
def app(tmp_path):
    host = Host((Found("paged", Path(), Paged(Context(Path(), tmp_path, {}))),))
    return fake_engine.make_app(tmp_path, model=False, host=host)


def client(app, **flags):
    site = FastAPI()
    add_api(site, app, Flags(**flags))
    return TestClient(site)


def test_routes_answer_and_take_no_address_over(app):
    api = client(app, api=True)
    assert api.get("/paged?text=a").json() == {"text": "a", "variant": None}
    assert api.post("/paged", json=[1]).json() == [1]
    assert api.get("/sdapi/v1/embeddings").json()["loaded"] == {"mine": {}}
    assert api.get("/sdapi/v1/hypernetworks").json() == []
    assert isinstance(api.get("/sdapi/v1/samplers").json(), list)


def test_a_tab_and_its_script_are_in_the_page(app):
    config = blocks(app).get_config_file()
    labels = [item["props"].get("label") for item in config["components"] if item["type"] == "tabitem"]
    assert "My tab" in labels
    assert any(item["props"].get("value") == "<b id='mine'>here</b>" for item in config["components"])
    document = head("1", None, [tab.script for _, tab in app.host.tabs()])
    [encoded] = re.findall(r"data:text/javascript;base64,([^\"]+)", document)
    assert base64.b64decode(encoded).decode() == "alert('</script>')"


def test_an_upscaler_is_offered_accepted_and_named_when_it_fails(app):
    api = client(app, api=True)
    assert "My upscaler" in [one["name"] for one in api.get("/sdapi/v1/upscalers").json()]
    assert "My upscaler" in [one["name"] for one in api.get("/darkroom/v1/upscalers").json()]
    config = blocks(app).get_config_file()
    [upscaler] = [one for one in config["components"] if one["props"].get("elem_id") == "txt2img_hr_upscaler"]
    assert "My upscaler" in [choice[0] for choice in upscaler["props"]["choices"]]
    write_stand_in_checkpoint(app.folders.checkpoints[0])
    request = Request(prompt="a cat", enable_hr=True, hr_upscaler="my UPSCALER")
    assert app.submit(request).request.hr_upscaler == "My upscaler"
    with pytest.raises(PluginFailed, match="'paged' failed in the upscaler My upscaler: ValueError"):
        app.host.upscalers()["My upscaler"].upscale(None, 1, 1)


def test_a_sampler_is_offered_accepted_and_named_when_it_fails(app):
    api = client(app, api=True)
    assert {"name": "My sampler", "aliases": ["mine"], "options": {}}.items() <= api.get(
        "/sdapi/v1/samplers").json()[-1].items()
    assert "My sampler" in [one["name"] for one in api.get("/darkroom/v1/samplers").json()]
    config = blocks(app).get_config_file()
    for control in ("txt2img_sampling", "img2img_sampling", "hr_sampler"):
        [listed] = [one for one in config["components"] if one["props"].get("elem_id") == control]
        assert "My sampler" in [choice[0] for choice in listed["props"]["choices"]]
    write_stand_in_checkpoint(app.folders.checkpoints[0])
    request = app.submit(Request(prompt="a cat", sampler="Mine karras", enable_hr=True, hr_sampler="MINE")).request
    assert (request.sampler, request.schedule, request.hr_sampler) == ("My sampler", "Karras", "My sampler")
    with pytest.raises(PluginFailed, match="'paged' failed in the sampler My sampler: ValueError"):
        app.host.samplers()[-1].sample(None)
