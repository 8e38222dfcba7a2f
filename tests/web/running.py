"""A whole site over an engine without weights, served on a free port in a thread."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from modules.app.admission import listed_choice
from modules.app.app import App, assemble
from modules.app.settings import SettingsStore
from modules.host.discover import Found
from modules.host.registry import Host
from modules.launcher.flags import Flags
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.web.site import asgi, bind, stop
from modules.web.starting import Starting
from tests.fixtures.fake_engine import FakeEngine


@dataclass(frozen=True)
class Site:
    """A running server: its address, the app behind it and the engine behind that."""

    url: str
    app: App
    engine: Any


def make_app(root: Path, engine: Any, found: tuple[Found, ...] = (), model: bool = True) -> App:
    """Return an App whose files are below ``root``; with ``model``, one checkpoint is listed."""
    places = folders(root, {}, {})
    if model:
        places.checkpoints[0].mkdir(parents=True, exist_ok=True)
        (places.checkpoints[0] / "stand-in.safetensors").write_bytes(b"x")
    library = Library(places, HashCache(root / "hashes.sqlite3"))
    settings = SettingsStore(places.config, listed_choice(library))
    return assemble(library, settings, Host(found), engine, Flags())


@contextmanager
def serving(app: App, flags: Flags | None = None) -> Iterator[Site]:
    """Serve ``app`` on a free port until the block ends."""
    listener = bind("127.0.0.1", 0)
    flags = flags or Flags()
    site = Starting(lambda: asgi(app, flags), lambda: stop(server))
    config = uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    app.start()
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    prefix = f"/{flags.subpath.strip('/')}" if flags.subpath else ""
    url = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    with suppress(urllib.error.HTTPError):  # with accounts it is refused, but once all is there all the same
        urllib.request.urlopen(f"{url}/darkroom/page/session", timeout=120).close()
    try:
        yield Site(url, app, app.engine)
    finally:
        server.should_exit = True
        thread.join(10)
        app.close()


def fake_engine(root: Path, **options: Any) -> FakeEngine:
    """Return an engine that saves flat pictures below ``root``."""
    return FakeEngine(root / "outputs", **options)
