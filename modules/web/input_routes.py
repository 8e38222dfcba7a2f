"""Routes for the pictures and masks that a tab begins with: brought once, then known by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import FileResponse, JSONResponse

from modules.core.errors import InvalidRequest, NotFound
from modules.library.inputs import Inputs
from modules.web.answers import owner_of
from modules.web.image_batch import brought
from modules.web.pictures import FRESH, PICTURE

# What the editor may change in a stored form; all other values come from controls.
NAMES = ("init_image", "mask", "sketch", "depth_map")
TABS = ("txt2img", "img2img", "extras")


def routes(app: Any) -> APIRouter:
    """Return the routes ``inputs``, ``forms`` and ``batch``."""
    own = APIRouter()
    inputs = Inputs(app.folders.inputs)

    @own.post("/inputs")
    def bring(picture: Annotated[bytes, Body(media_type="application/octet-stream")] = b"") -> Any:
        """Store a picture; answers its id and size."""
        stored = inputs.put(picture)
        return {"id": stored.id, "width": stored.width, "height": stored.height}

    @own.get("/inputs/{key}")
    def show(key: str) -> FileResponse:
        return FileResponse(inputs.path(key), media_type="image/png", headers=PICTURE)

    @own.get("/forms/{tab}")
    def form(tab: str, request: Request) -> JSONResponse:
        """Answer the ids in the stored form of a tab, empty where there is none or its picture is gone."""
        return JSONResponse(known(inputs, app.forms.load(owner_of(request), _checked(tab))), headers=FRESH)

    @own.post("/forms/{tab}")
    def change(tab: str, request: Request, values: Annotated[dict[str, str], Body()]) -> Any:
        """Put ids of stored pictures, or empty texts, into the form of a tab; answers all of them."""
        for name, key in values.items():
            if name not in NAMES:
                raise InvalidRequest(f"{name!r} is none of {', '.join(NAMES)}.")
            if key:
                inputs.path(key)
        return known(inputs, app.forms.merge(owner_of(request), _checked(tab), values))

    own.include_router(_batch(app, inputs))
    return own


def _batch(app: Any, inputs: Inputs) -> APIRouter:
    """The files of a tab's batch, kept in its form; every route answers their names in order.

    What is no picture is left out, and ``skipped`` says why: one broken file of many is not a failed request.
    """
    routes = APIRouter(prefix="/batch")

    def files(request: Request, tab: str) -> list[dict[str, str]]:
        return list(app.forms.load(owner_of(request), _checked(tab)).get("batch") or ())

    def kept(request: Request, tab: str, batch: list[dict[str, str]]) -> dict[str, Any]:
        app.forms.merge(owner_of(request), _checked(tab), {"batch": batch})
        return {"names": [one["name"] for one in batch]}

    @routes.get("")
    def names(request: Request, tab: str = "img2img") -> JSONResponse:
        return JSONResponse({"names": [one["name"] for one in files(request, tab)]}, headers=FRESH)

    @routes.post("")
    def add(request: Request, name: str, tab: str = "img2img",
            picture: Annotated[bytes, Body(media_type="application/octet-stream")] = b"") -> Any:
        before = files(request, tab)
        try:
            source = brought(name[:200], picture, inputs)
        except InvalidRequest as error:
            return kept(request, tab, before) | {"skipped": {"message": error.message, "hint": error.hint}}
        return kept(request, tab, [*before, asdict(source)])

    @routes.post("/clear")
    def clear(request: Request, tab: str = "img2img") -> Any:
        return kept(request, tab, [])

    return routes


def _checked(tab: str) -> str:
    if tab not in TABS:
        raise NotFound(f"There is no tab {tab!r}.")
    return tab


def known(inputs: Inputs, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids in the values of a form, empty where there is none or its picture is gone."""
    return {name: _stored(inputs, values.get(name)) for name in NAMES}


def _stored(inputs: Inputs, key: Any) -> str:
    try:
        inputs.path(str(key or ""))
    except NotFound:
        return ""
    return str(key)
