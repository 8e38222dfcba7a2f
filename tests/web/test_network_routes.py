import io
import json
from dataclasses import replace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from modules.app.settings import SettingsStore
from modules.core.request import Request
from modules.web.answers import add_error_answers
from modules.web.routes import router
from tests.fixtures.networks import write_network
from tests.web.running import fake_engine, make_app

OURS = {"x-darkroom": "page"}
ROOT = "/darkroom/page/networks"


@pytest.fixture
def app(tmp_path):
    built = make_app(tmp_path, fake_engine(tmp_path))
    lora = built.folders.lora[0]
    (lora / "sub").mkdir(parents=True)
    write_network(lora / "amber.safetensors", 768, {"ss_network_dim": "16", "ss_tag_frequency": json.dumps(
        {"a": {"cat": 2, "<b>": 1}, "b": {"cat": 3, "dog": 4}})})
    write_network(lora / "sub" / "birch.safetensors", 2048)
    (lora / "amber.json").write_text(json.dumps({
        "description": "<img src=x onerror=alert(1)>", "preferred weight": 0.5}))
    built.start()
    built.networks.rescan(wait=True)
    yield built
    built.close()


@pytest.fixture
def client(app):
    return served(app)


def served(app):
    site = FastAPI()
    add_error_answers(site)
    site.include_router(router(app))
    return TestClient(site, raise_server_exceptions=False, headers=OURS)


def cards(client, **query):
    return client.get(ROOT, params={"kind": "lora", **query}).json()


def test_cards_are_found_by_words_folder_and_page_and_tell_no_path(client, tmp_path) -> None:
    answer = cards(client)
    assert [card["name"] for card in answer["networks"]] == ["amber", "birch"]
    assert (answer["count"], answer["folders"], answer["scanning"]) == (2, {"": 1, "sub": 1}, False)
    assert str(tmp_path) not in json.dumps(answer)
    assert [card["name"] for card in cards(client, text="irc")["networks"]] == ["birch"]
    assert [card["name"] for card in cards(client, folder="sub")["networks"]] == ["birch"]
    assert [card["name"] for card in cards(client, limit=1, offset=1, descending=True)["networks"]] == ["amber"]


@pytest.mark.parametrize("query, status", [
    ({"kind": "../etc"}, 404), ({"sort": "size"}, 422), ({"limit": 10_000}, 422), ({"offset": -1}, 422)])
def test_what_cannot_be_asked_is_refused(client, query, status) -> None:
    assert client.get(ROOT, params={"kind": "lora", **query}).status_code == status


def test_what_does_not_fit_the_model_is_left_out_unless_everything_is_asked_for(client, app, monkeypatch) -> None:
    monkeypatch.setattr(type(app.networks), "family", lambda networks, checkpoint: "sd15")
    assert [card["name"] for card in cards(client)["networks"]] == ["amber"] and cards(client)["count"] == 1
    assert cards(client, everything=True)["count"] == 2 and cards(client)["family"] == "sd15"


def test_details_are_what_lies_beside_the_file_and_in_its_header(client) -> None:
    (card,) = cards(client, text="amber")["networks"]
    answer = client.get(f"{ROOT}/{card['id']}").json()
    assert answer["own"]["weight"] == 0.5 and answer["own"]["description"] == "<img src=x onerror=alert(1)>"
    assert answer["tags"] == [["cat", 5], ["dog", 4], ["<b>", 1]] and answer["facts"] == {"Rank": "16"}
    assert answer["problem"] == ""


def test_an_edit_is_written_and_answered_with_the_card(client, app) -> None:
    (card,) = cards(client, text="amber")["networks"]
    answer = client.post(f"{ROOT}/{card['id']}", json={"activation": "amber light", "weight": 0.7})
    assert (answer.status_code, answer.json()["activation"], answer.json()["weight"]) == (200, "amber light", 0.7)
    written = json.loads((app.folders.lora[0] / "amber.json").read_text())
    assert written["activation text"] == "amber light" and written["description"].startswith("<img")
    assert client.post(f"{ROOT}/{card['id']}", json={"path": "x"}).status_code == 422
    assert client.post(f"{ROOT}/{card['id']}", json=[1]).status_code == 422


@pytest.mark.parametrize("path, body", [("", {"notes": "x"}), ("/cover", {"job": "x", "index": 0}), ("/choose", {})])
def test_nothing_is_written_for_another_site_or_while_settings_are_frozen(client, app, path, body) -> None:
    at = f"{ROOT}/{cards(client, text='amber')['networks'][0]['id']}{path}"
    bare = TestClient(client.app, raise_server_exceptions=False)
    assert bare.post(at, json=body).status_code == 403
    frozen = served(replace(app, settings=SettingsStore(app.folders.config, frozen=True)))
    answer = frozen.post(at, json=body)
    assert answer.status_code == (422 if path == "/choose" else 403)
    assert "notes" not in (app.folders.lora[0] / "amber.json").read_text()


@pytest.mark.parametrize("network", ["999999", "-1", "../amber", "1e3", "9" * 20])
def test_what_is_no_network_is_not_found(client, network) -> None:
    assert client.get(f"{ROOT}/{network}").status_code in (404, 422)
    assert client.get(f"{ROOT}/{network}/cover").status_code in (404, 422)


def test_a_picture_of_a_job_becomes_the_cover(client, app) -> None:
    job = app.wait(app.submit(Request(prompt="a cat", steps=1, width=64, height=64)).id, 30)
    (card,) = cards(client, text="amber")["networks"]
    assert card["thumbnail"] == "" and client.get(f"{ROOT}/{card['id']}/cover").status_code == 404
    answer = client.post(f"{ROOT}/{card['id']}/cover", json={"job": job.id, "index": 0})
    shown = client.get(f"/{answer.json()['thumbnail']}")
    assert shown.headers["content-type"] == "image/jpeg" and "immutable" in shown.headers["cache-control"]
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.size == (64, 64)
    assert client.post(f"{ROOT}/{card['id']}/cover", json={"job": job.id, "index": 9}).status_code == 404


def test_a_checkpoint_is_chosen_and_another_network_is_not(client, app) -> None:
    (card,) = cards(client, kind="checkpoint")["networks"]
    assert client.post(f"{ROOT}/{card['id']}/choose").json()["checkpoint"].startswith("stand-in.safetensors")
    assert app.settings.get().sd_model_checkpoint.startswith("stand-in.safetensors")
    assert client.post(f"{ROOT}/{cards(client)['networks'][0]['id']}/choose").status_code == 422


def test_a_refresh_finds_new_files_and_the_state_says_so(client, app) -> None:
    before = client.get(f"{ROOT}/state").json()
    write_network(app.folders.lora[0] / "new.safetensors")
    assert client.post(f"{ROOT}/refresh").status_code == 200
    app.networks.rescan(wait=True)
    after = client.get(f"{ROOT}/state").json()
    assert after["revision"] > before["revision"] and cards(client)["count"] == 3


def test_the_folders_come_with_the_first_cards(client) -> None:
    assert cards(client)["folders"] and not cards(client, offset=1)["folders"]
