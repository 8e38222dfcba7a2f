"""The addresses that extensions answer."""

from __future__ import annotations

import functools
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from modules.core.errors import InvalidRequest
from modules.plugin import Asked, Route
from modules.web.chosen import chosen


def router(app: Any, closed: str = "") -> APIRouter:
    """Return the routes that the plugins of ``app`` declare, but those that begin with ``closed``."""
    routes = APIRouter(tags=["Extensions"])
    for route in app.host.routes():
        if not (closed and route.path.startswith(closed)):
            routes.add_api_route(route.path, functools.partial(_answer, app, route), methods=[route.method],
                                 name=route.path, response_model=None)
    return routes


async def _answer(app: Any, route: Route, request: Request) -> Any:
    sent = await request.body()
    try:
        body = json.loads(sent) if sent else None
    except ValueError:
        raise InvalidRequest("What was sent is no JSON.") from None
    return await run_in_threadpool(
        lambda: route.answer(Asked(dict(request.query_params), body, chosen(app).variant))
    )
