"""Routes for the picture that the Extras tab enlarges."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from modules.core.extras import Source
from modules.library.inputs import Inputs
from modules.web.answers import owner_of
from modules.web.image_batch import brought
from modules.web.image_fields import known
from modules.web.pictures import FRESH
from modules.web.tabs import extras


def routes(app: Any) -> APIRouter:
    """The single picture of the Extras tab, with its file's name and its infotext; every route answers what it is."""
    own = APIRouter(prefix="/source")
    inputs = Inputs(app.folders.inputs)

    def shown(source: Source | None) -> dict[str, Any]:
        if source is None or not known(source.image, inputs):
            return {"id": "", "name": "", "width": 0, "height": 0}
        stored = inputs.get(source.image)
        return {"id": stored.id, "name": source.name, "width": stored.width, "height": stored.height}

    @own.get("")
    def current(request: Request) -> JSONResponse:
        return JSONResponse(shown(extras.source_of(app.forms.load(owner_of(request), extras.TAB))), headers=FRESH)

    @own.post("")
    def bring(request: Request, name: str,
              picture: Annotated[bytes, Body(media_type="application/octet-stream")] = b"") -> Any:
        found = brought(name[:200], picture, inputs)
        source = Source(found.image, found.name, found.infotext)
        app.forms.merge(owner_of(request), extras.TAB, {"source": asdict(source), "mode": extras.SINGLE})
        return shown(source)

    @own.post("/clear")
    def clear(request: Request) -> Any:
        app.forms.merge(owner_of(request), extras.TAB, {"source": None})
        return shown(None)

    return own
