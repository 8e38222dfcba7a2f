"""Extensions from the page: what is at an address is shown first, and only that is installed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from modules.app.admission import listed_choice
from modules.app.settings import SettingsStore
from modules.core.errors import DarkroomError
from modules.host.discover import Found
from modules.launcher.flags import Flags
from modules.web.answers import add_error_answers
from modules.web.extension_routes import routes
from tests.web.running import fake_engine, make_app

SOURCE = '''from modules.plugin import Plugin

open("it_ran", "w")


class Frame(Plugin):
    id = "frame"
    name = "Frame"
    version = "{version}"
    description = "A frame."
'''


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return written(tmp_path / "frame.zip", "1")


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def client(tmp_path: Path, ran: list[Any]) -> TestClient:
    return served(tmp_path, ran)


def written(path: Path, version: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("plugin.py", SOURCE.format(version=version))
        archive.writestr("requirements.txt", "colour>=1\n")
    return path


def served(root: Path, ran: list[Any], flags: Flags | None = None, error: Exception | None = None,
           found: tuple[Found, ...] = ()) -> TestClient:
    def run(step: Any, log: Path) -> None:
        ran.append(step.command)
        if error:
            raise error

    flags = flags or Flags()
    app = make_app(root, fake_engine(root), found, model=False)
    settings = SettingsStore(app.folders.config, listed_choice(app.library), frozen=flags.freeze_settings)
    app = dataclasses.replace(app, flags=flags, settings=settings)
    site = FastAPI()
    add_error_answers(site)
    site.include_router(routes(app, run))
    return TestClient(site, raise_server_exceptions=False)


def look(client: TestClient, **what: str) -> Any:
    answer = client.post("/extensions/look", json=what)
    assert answer.status_code == 200, answer.text
    return answer.json()["offer"]


def test_what_is_shown_is_installed_and_runs_from_the_next_start_on(client, archive, tmp_path, ran) -> None:
    offer = look(client, address=str(archive))
    assert (offer["name"], offer["version"], offer["packages"], len(offer["revision"])) == (
        "Frame", "1", ["colour>=1"], 64)
    assert not (tmp_path / "extensions" / "frame").exists() and ran == []
    answer = client.post("/extensions/install", json={"address": str(archive), "revision": offer["revision"]}).json()
    [one] = answer["extensions"]
    assert (one["id"], one["pending"], one["source"]["address"]) == ("frame", True, str(archive))
    assert (tmp_path / "extensions" / "frame" / "plugin.py").is_file() and ran[0][-2:] == ("--", "colour>=1")
    assert not Path("it_ran").exists()
    assert client.get("/extensions").json() == answer


def test_another_revision_than_was_shown_is_not_installed(client, archive, tmp_path) -> None:
    offer = look(client, address=str(archive))
    written(archive, "2")
    for revision in (offer["revision"], ""):
        answer = client.post("/extensions/install", json={"address": str(archive), "revision": revision})
        assert answer.status_code >= 400 and not (tmp_path / "extensions" / "frame").exists()


def test_an_update_is_shown_too(client, archive, tmp_path) -> None:
    offer = look(client, address=str(archive))
    client.post("/extensions/install", json={"address": str(archive), "revision": offer["revision"]})
    assert look(client, id="frame") is None
    written(archive, "2")
    newer = look(client, id="frame")
    assert newer["version"] == "2"
    [one] = client.post("/extensions/install", json={"id": "frame", "revision": newer["revision"]}).json()["extensions"]
    assert (one["version"], one["source"]["revision"]) == ("2", newer["revision"])
    for name in ("other", "../extensions/frame"):
        assert client.post("/extensions/look", json={"id": name}).status_code == 404


def test_a_failure_of_pip_leaves_nothing_behind(tmp_path, archive, ran) -> None:
    client = served(tmp_path, ran, error=DarkroomError("pip failed", "Look."))
    revision = look(client, address=str(archive))["revision"]
    answer = client.post("/extensions/install", json={"address": str(archive), "revision": revision})
    assert answer.json()["message"] == "pip failed" and not (tmp_path / "extensions" / "frame").exists()
    assert client.get("/extensions").json()["extensions"] == []


@pytest.mark.parametrize("flags", [Flags(listen=True), Flags(share=True), Flags(freeze_settings=True)])
def test_it_is_refused_where_others_may_ask(tmp_path, archive, ran, flags) -> None:
    client = served(tmp_path, ran, flags)
    for path in ("look", "install"):
        assert client.post(f"/extensions/{path}", json={"address": str(archive)}).status_code == 403


@pytest.mark.parametrize("flags", [Flags(listen=True), Flags(share=True), Flags(freeze_settings=True)])
def test_nothing_is_switched_there_either(tmp_path, archive, ran, flags) -> None:
    client = served(tmp_path, ran, flags)
    assert client.post("/extensions/frame/switch", json={"enabled": False}).status_code == 403
    assert "--" in client.get("/extensions").json()["locked"]
    open_client = served(tmp_path / "other", ran)
    assert open_client.post("/extensions/frame/switch", json={"enabled": False}).status_code == 404
    assert open_client.get("/extensions").json()["locked"] == ""


@pytest.mark.parametrize("extension_id", ["look", "install"])
def test_no_id_is_taken_for_another_address(tmp_path, ran, extension_id) -> None:
    client = served(tmp_path, ran, found=(Found(extension_id, tmp_path, None),))
    [one] = client.post(f"/extensions/{extension_id}/switch", json={"enabled": False}).json()["extensions"]
    assert (one["id"], one["enabled"]) == (extension_id, False)


def test_one_that_runs_from_the_next_start_on_can_be_turned_off_before(client, archive) -> None:
    revision = look(client, address=str(archive))["revision"]
    client.post("/extensions/install", json={"address": str(archive), "revision": revision})
    for enabled in (False, True):
        [one] = client.post("/extensions/frame/switch", json={"enabled": enabled}).json()["extensions"]
        assert (one["id"], one["enabled"], one["pending"]) == ("frame", enabled, True)


def test_one_that_was_removed_by_hand_is_no_longer_listed(client, archive, tmp_path) -> None:
    revision = look(client, address=str(archive))["revision"]
    client.post("/extensions/install", json={"address": str(archive), "revision": revision})
    (tmp_path / "extensions/frame/plugin.py").write_text("damaged (")
    assert len(client.get("/extensions").json()["extensions"]) == 1
    shutil.rmtree(tmp_path / "extensions/frame")
    assert client.get("/extensions").json()["extensions"] == []


@pytest.mark.parametrize(("name", "content"), [
    ("requirements.txt", b"\xff"), ("plugin.py", b"-" * 200_000), ("plugin.py", b"a" + b".a" * 100_000),
    ("plugin.py", b"class A(Plugin):\n    id = 'frame'\n    name = '\\ud800'"), ("plugin.py/b", b""), ("x" * 300, b""),
])
def test_what_is_wrong_with_an_archive_is_said_without_folders_of_the_server(client, tmp_path, name, content) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        if name != "plugin.py":
            archive.writestr("plugin.py", SOURCE.format(version="1"))
        archive.writestr(name, content)
    answer = client.post("/extensions/look", json={"address": str(tmp_path / "bad.zip")})
    assert answer.status_code == 422 and str(tmp_path) not in answer.text.replace(str(tmp_path / "bad.zip"), "")
    assert list((tmp_path / "extensions").iterdir()) == []


@pytest.mark.parametrize(("address", "status"), [
    ("https://me:secret@example.org/a.git", 422), ("a\0b", 422), ("\ud800", 422), ("http://example.org/a.zip", 403),
    ("/nowhere/a.zip", 404), ("/nowhere/a", 404), ("~nobody-of-this-name/a.zip", 404), ("https://[/a.zip", 404),
])
def test_addresses_that_cannot_be(client, address, status) -> None:
    answer = client.post("/extensions/look", content=json.dumps({"address": address}),
                         headers={"content-type": "application/json"})
    assert answer.status_code == status and "secret" not in answer.text


def test_from_afar_nothing_of_this_network_is_read(tmp_path, ran) -> None:
    client = served(tmp_path, ran, Flags(listen=True, enable_insecure_extension_access=True))
    for address in ("https://127.0.0.1/a.zip", "https://localhost/a.git"):
        answer = client.post("/extensions/look", json={"address": address})
        assert answer.status_code == 403 and "local network" in answer.json()["message"]


def test_from_afar_only_addresses_of_the_web_are_read(tmp_path, archive, ran) -> None:
    client = served(tmp_path, ran, Flags(listen=True, enable_insecure_extension_access=True))
    answer = client.post("/extensions/look", json={"address": str(archive)})
    assert answer.status_code == 422 and "https" in answer.json()["message"]
