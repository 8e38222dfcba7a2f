"""Both interfaces for programs, and their description, on one site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from modules.web.api import docs, internal, native, sdapi

if TYPE_CHECKING:
    from modules.launcher.flags import Flags


def add_api(site: FastAPI, app: Any, flags: Flags) -> None:
    """Add both interfaces and ``/docs`` to ``site``; A1111's with ``--api`` or ``--nowebui``, as there.

    Without it, its addresses say how to turn it on.
    """
    site.include_router(docs.router())
    site.include_router(native.router(app))
    site.include_router(internal.router(app))
    site.include_router(sdapi.router(app) if flags.api or flags.nowebui else sdapi.closed())
