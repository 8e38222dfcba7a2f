"""Routes of the networks browser: cards by words, covers, and what is known of a network; each by its row's id."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse

from modules.app.networks import Network
from modules.app.networks import Query as Wanted
from modules.core.errors import DarkroomError, InvalidRequest, NotFound
from modules.library.files import CHECKPOINT
from modules.library.headers import read_header
from modules.library.images import FORMATS
from modules.library.network_files import NETWORKS
from modules.library.training_metadata import facts, trained_tags
from modules.web.pictures import FRESH, PICTURE, picture_of

MAX_CARDS = 200
MAX_COVER_SIDE = 1024
SHOWN_TAGS = 40
NetworkId = Annotated[int, PathParameter(ge=0, lt=2**63)]


def routes(app: Any) -> APIRouter:
    """Return the routes ``networks``."""
    own = APIRouter(prefix="/networks")

    @own.get("")
    def search(kind: str, text: str = "", folder: str = "", sort: str = "name", descending: bool = False,
               everything: bool = False, limit: Annotated[int, Query(ge=0, le=MAX_CARDS)] = 60,
               offset: Annotated[int, Query(ge=0, le=10**9)] = 0) -> JSONResponse:
        """Answer cards and how many there are; without ``everything`` those that do not fit the model are left out.

        The folders come with the first cards alone.
        """
        if kind not in NETWORKS:
            raise NotFound(f"There are no networks of the kind {kind[:60]!r}.")
        settings = app.settings.get()
        family = "" if kind == CHECKPOINT else app.networks.family(settings.sd_model_checkpoint)
        query = Wanted(kind, text, folder, "" if everything else family, sort, descending)
        rows, count = app.networks.page(query, limit, offset)
        return _fresh({
            "networks": [view(row) for row in rows], "count": count,
            "folders": {} if offset else app.networks.folders(kind), "family": family,
            "weight": settings.extra_networks_default_multiplier, **state(app),
        })

    @own.get("/state")
    def now() -> JSONResponse:
        """Answer whether the folders are being looked through, and a number that changes with the index."""
        return _fresh(state(app))

    @own.post("/refresh")
    def refresh() -> Any:
        """Look for new, changed and deleted files, in the background."""
        app.networks.rescan()
        return state(app)

    own.include_router(_of_one(app))
    return own


def _of_one(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/{network_id}")

    @routes.get("")
    def details(network_id: NetworkId) -> JSONResponse:
        return _fresh(detailed(app, app.networks.get(network_id)))

    @routes.post("")
    def edit(network_id: NetworkId, changes: Annotated[dict[str, Any], Body()]) -> Any:
        """Change what is written beside the network; answers its card."""
        app.settings.check_writable()
        return view(app.networks.edit(network_id, changes))

    @routes.get("/cover")
    def cover(network_id: NetworkId) -> FileResponse:
        return FileResponse(app.networks.thumbnail(network_id), media_type="image/jpeg", headers=PICTURE)

    @routes.post("/cover")
    def set_cover(network_id: NetworkId, job: Annotated[str, Body()], index: Annotated[int, Body()]) -> Any:
        """Make a picture of a job the cover; answers the card."""
        app.settings.check_writable()
        return view(app.networks.set_cover(network_id, as_png(picture_of(app.job(job), index).path)))

    @routes.post("/choose")
    def choose(network_id: NetworkId) -> Any:
        """Make a checkpoint the model that pictures are made with."""
        row = app.networks.get(network_id)
        if row.kind != CHECKPOINT:
            raise InvalidRequest(f"{row.name} is no checkpoint.")
        return {"checkpoint": app.settings.update({"sd_model_checkpoint": row.file}).sd_model_checkpoint}

    return routes


def state(app: Any) -> dict[str, Any]:
    """Return how far the index is."""
    return {"scanning": app.networks.scanning, "revision": app.networks.revision}


def view(row: Network) -> dict[str, Any]:
    """Return a network as its card shows it; no path of the server is told."""
    shown = ("id", "kind", "name", "file", "folder", "size", "modified", "family", "version", "description",
             "activation", "negative", "weight")
    address = f"darkroom/page/networks/{row.id}/cover?v={row.thumbnail}" if row.thumbnail else ""
    return {name: getattr(row, name) for name in shown} | {"thumbnail": address}


def detailed(app: Any, row: Network) -> dict[str, Any]:
    """Return what the editor shows: the card, the texts beside the file, and what its training left in it."""
    texts = app.networks.texts(row.id)
    metadata = _metadata(row)
    return view(row) | {
        "own": asdict(texts.own), "found": asdict(texts.found), "title": texts.title, "problem": texts.problem,
        "tags": trained_tags(metadata)[:SHOWN_TAGS], "facts": facts(metadata),
    }


def as_png(path: str) -> bytes:
    """Return a saved picture as a PNG that is small enough for a cover; raises ``NotFound``."""
    from PIL import Image

    from modules.imaging.thumbnails import thumbnail

    buffer = io.BytesIO()
    try:
        with Image.open(path, formats=FORMATS) as image:
            thumbnail(image, MAX_COVER_SIDE).save(buffer, "PNG")
    except OSError as error:
        raise NotFound("The picture's file is no longer there.") from error
    return buffer.getvalue()


def _metadata(row: Network) -> Mapping[str, str]:
    if Path(row.path).suffix.lower() != ".safetensors":
        return {}
    try:
        return read_header(row.path).metadata
    except DarkroomError:
        return {}


def _fresh(content: Mapping[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers=FRESH)
