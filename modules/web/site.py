"""The server: page and interfaces in one application, answered from the first moment."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Any

import uvicorn

from modules.core.errors import DarkroomError
from modules.launcher import access
from modules.web.starting import Starting

if TYPE_CHECKING:
    from modules.launcher.flags import Flags

FIRST_PORT, LAST_PORT = 7860, 7959


def serve(app: Any, flags: Flags) -> None:
    """Start ``app``, answer requests until Ctrl+C, close it.

    Without ``--port`` the first free port from 7860 on is taken. Raises ``DarkroomError`` where none can be had.
    """
    listener = bind(access.host(flags), flags.port)
    port = listener.getsockname()[1]
    site = Starting(lambda: _started(app, flags), lambda: stop(server))
    config = uvicorn.Config(
        site, log_level="warning", timeout_keep_alive=flags.timeout_keep_alive, ssl_keyfile=flags.tls_keyfile or None,
        ssl_certfile=flags.tls_certfile or None, timeout_graceful_shutdown=2, proxy_headers=True, lifespan="on",
    )
    server = uvicorn.Server(config)
    say(f"Running on local URL:  {access.address(flags, port).rstrip('/')}")
    try:
        if flags.share:
            threading.Thread(target=_share, args=(port,), name="share", daemon=True).start()
        if flags.autolaunch:
            threading.Thread(target=webbrowser.open, args=(access.address(flags, port),), daemon=True).start()
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        app.close()
    if site.failure is not None:
        raise site.failure


def _started(app: Any, flags: Flags) -> Any:
    """Build the application, then start the engine: importing torch beside gradio would delay the page by half."""
    site = asgi(app, flags)
    app.start()
    return site


def asgi(app: Any, flags: Flags) -> Any:
    """Return the application: both interfaces for programs, the page unless ``--nowebui``, and what protects them."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from fastapi import FastAPI

    from modules import __version__
    from modules.web.answers import add_error_answers
    from modules.web.api.mount import add_api
    from modules.web.protection import protect

    site = FastAPI(title="Darkroom", version=__version__, docs_url=None, redoc_url=None)
    add_error_answers(site)
    add_api(site, app, flags)
    if not flags.nowebui:  # Gradio takes every address that nobody else has taken before
        _add_page(site, app, flags)
    protect(site, flags, app.folders.data_dir)
    if flags.subpath.strip("/"):
        site.add_middleware(Below, path=f"/{flags.subpath.strip('/')}")
    return site


class Below:
    """ASGI middleware for a site that a reverse proxy serves under ``path``, whether or not it strips that."""

    def __init__(self, site: Any, path: str) -> None:
        self._site = site
        self._path = path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._site({**scope, "root_path": self._path}, receive, send)


def bind(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; raises ``DarkroomError`` if the port, or every port of ours, is taken."""
    for candidate in range(FIRST_PORT, LAST_PORT + 1) if port is None else (port,):
        try:
            return _listener(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DarkroomError(f"{host}:{candidate} cannot be used: {error.strerror}.",
                                    "Choose another with --port or --server-name.") from error
    taken = f"Ports {FIRST_PORT} to {LAST_PORT} are" if port is None else f"Port {port} is"
    raise DarkroomError(f"{taken} taken by another program.", "Choose another with --port.")


def stop(server: uvicorn.Server) -> None:
    """Let the server end as soon as it can."""
    server.should_exit = True


def say(line: str) -> None:
    """Write a line to the terminal at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _add_page(site: Any, app: Any, flags: Flags) -> None:
    import gradio as gr

    from modules.web import routes
    from modules.web.head import Head, head
    from modules.web.page import blocks
    from modules.web.theme import theme

    site.include_router(routes.router(app))
    scripts = [tab.script for _, tab in app.host.tabs() if tab.script]
    site.add_middleware(Head, ours=head(routes.asset_version(), flags.theme, scripts))
    gr.mount_gradio_app(
        site, blocks(app), path="/", theme=theme(), footer_links=[], run_history=False, pwa=False, ssr_mode=False,
        enable_monitoring=False, mcp_server=False, show_error=True,
    )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio leaves small packets waiting for one another (Nagle): 40 ms for every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _share(port: int) -> None:
    """Open gradio's tunnel to ``port`` and print its address; the one thing here that needs the network."""
    import secrets

    from gradio.networking import setup_tunnel

    try:
        address = setup_tunnel(access.LOOPBACK, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # noqa: BLE001 - no tunnel is no reason to stop serving
        say(f"No public address could be opened: {error}")
        return
    say(f"Running on public URL: {address}")
