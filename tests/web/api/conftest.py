"""The APIs over an engine without weights, asked through the whole site but a socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from modules.app.app import App
from modules.core.result import Failure
from modules.host.discover import Found
from modules.launcher.flags import Flags
from modules.plugin import Context, Plugin, param
from modules.web.answers import add_error_answers
from modules.web.api.mount import add_api
from modules.web.protection import protect
from tests.web.running import fake_engine, make_app

FAILURE = Failure("OutOfMemory", "Too big.", "Make it smaller.", 507)


@dataclass(frozen=True)
class Params:
    enabled: bool = param(True, "Enable frames")
    width: int = param(2, "Frame width", infotext="Frame width", minimum=0, maximum=9)
    colour: str = param("black", "Frame colour", choices=("black", "white"))


class Frames(Plugin):
    id = "frames"
    name = "Picture Frames"
    version = "1.2"
    Params = Params


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    plugin = Frames(Context(tmp_path, tmp_path, {}))
    found = (Found("frames", tmp_path / "frames", plugin), Found("bad", tmp_path / "bad", None, "ImportError: no"))
    built = make_app(tmp_path, fake_engine(tmp_path, failure={"broken": FAILURE}), found)
    built.start()
    yield built
    built.close()


def site_of(app: App, flags: Flags | None = None) -> FastAPI:
    flags = flags or replace(Flags(), api=True)
    site = FastAPI(title="Darkroom", docs_url=None, redoc_url=None)
    add_error_answers(site)
    add_api(site, app, flags)
    protect(site, flags, app.folders.data_dir)
    return site


@pytest.fixture
def client(app: App) -> TestClient:
    return TestClient(site_of(app), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
