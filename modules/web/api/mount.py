"""Both interfaces for programs, and their description, on one site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from modules.web.api import docs, internal, native, plugin_routes, sdapi

if TYPE_CHECKING:
    from modules.launcher.flags import Flags


def add_api(site: FastAPI, app: Any, flags: Flags) -> None:
    """Add both interfaces and ``/docs`` to ``site``; A1111's with ``--api`` or ``--nowebui``, as there.

    Without it, its addresses say how to turn it on.
    """
    site.include_router(docs.router())
    site.include_router(native.router(app))
    site.include_router(internal.router(app))
    opened = flags.api or flags.nowebui
    # The core's addresses come first, so that no extension takes one over; its defaults for lists come last.
    site.include_router(sdapi.router(app) if opened else sdapi.closed())
    site.include_router(plugin_routes.router(app, closed="" if opened else sdapi.PREFIX))
    if opened:
        site.include_router(sdapi.defaults())
