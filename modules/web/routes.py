"""What the page's own scripts call, under ``/darkroom/page``; the public interfaces are in ``modules.web.api``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from modules.core import codec
from modules.core.errors import NotFound
from modules.core.extras import KIND, Extras, source_of
from modules.core.job import ENDED, QUEUED, RUNNING, Job
from modules.core.request import MAX_PROMPT_CHARACTERS
from modules.core.result import SavedImage
from modules.core.task import Task
from modules.library.inputs import Inputs
from modules.prompts.styles import Style
from modules.web import extension_routes, input_routes, inspection_routes, network_routes, source_routes
from modules.web.answers import owner_of, same_site
from modules.web.chosen import chosen
from modules.web.form import to_storage
from modules.web.live import event_stream, job_events
from modules.web.paste import Pasted, paste
from modules.web.pictures import FRESH, picture_of, picture_response, preview_response, zipped
from modules.web.tabs import img2img, txt2img
from modules.web.tabs.img2img import sent_picture
from modules.web.tabs.pnginfo import read_picture
from modules.web.tokens import count_tokens
from modules.web.views import job_view, row_view

ASSETS = Path(__file__).parent / "assets"
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
ACTIVE = (RUNNING, QUEUED)
HISTORY, SHOWN_ACTIVE = 100, 1000
GENERATORS = {one.tab: one for one in (txt2img.GENERATOR, img2img.GENERATOR)}


def router(app: Any) -> APIRouter:
    """Return all routes of the page for ``app``."""
    own = APIRouter(prefix="/darkroom", include_in_schema=False)
    own.include_router(_asset_routes())
    for routes in (_session_routes(app), _job_routes(app), _queue_routes(app), _gallery_routes(app), _tool_routes(app),
                   _style_routes(app), extension_routes.routes(app), input_routes.routes(app),
                   network_routes.routes(app), inspection_routes.routes(app), source_routes.routes(app)):
        own.include_router(routes, prefix="/page", dependencies=[Depends(same_site)])
    return own


@cache
def asset_version() -> str:
    """Return a short hash of all assets; it is part of their address, so that browsers may keep them for ever."""
    digest = hashlib.sha256()
    for path in sorted(ASSETS.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _asset_routes() -> APIRouter:
    routes = APIRouter()
    files = {path.name: path for path in ASSETS.iterdir() if path.is_file()}

    @routes.get("/assets/{version}/{name}")
    def asset(version: str, name: str) -> FileResponse:
        if name not in files:
            raise NotFound(f"There is no {name!r}.")
        return FileResponse(files[name], headers=FOREVER if version == asset_version() else FRESH)

    return routes


def _session_routes(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.get("/readme")
    def readme() -> FileResponse:
        return FileResponse(app.folders.root / "README.md", media_type="text/plain; charset=utf-8")

    @routes.get("/session")
    def session(request: Request, kind: str = "txt2img", origin: str = "page") -> Any:
        """What a tab that opens shows: its jobs under way, in their order, the last one that has ended, and the last
        one that has left pictures to show. ``kind`` is the tab, or the kinds of its jobs with commas between;
        ``origin`` is what has asked.
        """
        settings = app.settings.get()
        active, ended = (
            [job for job in app.jobs(owner=owner_of(request), states=states, limit=limit)
             if job.origin == origin and job.request.kind in kind.split(",")]
            for states, limit in ((ACTIVE, SHOWN_ACTIVE), (ENDED, HISTORY)))
        views = (job_view(job) for job in ended)
        last, shown = next(iter(ended), None), next((view for view in views if view["images"]), None)
        return _fresh({
            "active": [job_view(job) for job in active],
            "paused": app.paused,
            "last": job_view(last) if last else None,
            "pictures": shown,
            "models": len(app.library.checkpoints()),
            "folder": str(app.library.folders.checkpoints[0]),
            "tokens": not settings.disable_token_counters,
            "title": settings.show_progress_in_title,
        })

    return routes


def _job_routes(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/jobs")

    @routes.get("/{job_id}/events")
    def events(job_id: str) -> StreamingResponse:
        app.job(job_id)
        return event_stream(job_events(app, job_id))

    @routes.get("/{job_id}/preview")
    def preview(job_id: str) -> Response:
        return preview_response(app.preview(job_id))

    @routes.get("/{job_id}/pictures/{index}")
    def picture(job_id: str, index: int, size: int = 0) -> Response:
        return picture_response(picture_of(app.job(job_id), index).path, size)

    @routes.get("/{job_id}/pictures/{index}/source")
    def source(job_id: str, index: int) -> Response:
        """The picture that one of the Extras tab was made from."""
        job = app.job(job_id)
        return picture_response(str(Inputs(app.folders.inputs).path(source_id(job, picture_of(job, index)))))

    @routes.get("/{job_id}/pictures.zip")
    def pictures(job_id: str) -> Response:
        job = app.job(job_id)
        return Response(zipped([image.path for image in job.images]), media_type="application/zip",
                        headers={"Content-Disposition": f'attachment; filename="{job.id}.zip"'})

    @routes.post("/{job_id}/cancel")
    def cancel(job_id: str) -> Any:
        return job_view(app.cancel(job_id))

    @routes.post("/{job_id}/forget")
    def forget(job_id: str) -> Any:
        app.forget(job_id)
        return {}

    @routes.post("/{job_id}/move")
    def move(job_id: str, body: Annotated[dict[str, str | None], Body()]) -> Any:
        app.move(job_id, body.get("before"))
        return {}

    return routes


def _queue_routes(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/queue")

    @routes.get("")
    def queue() -> Any:
        active = app.jobs(states=ACTIVE, limit=SHOWN_ACTIVE)
        return _fresh({
            "paused": app.paused,
            "running": [row_view(job) for job in active if job.state == RUNNING],
            "queued": [row_view(job) for job in active if job.state == QUEUED],
            "ended": [row_view(job) for job in app.jobs(states=ENDED, limit=HISTORY)],
        })

    actions = {"pause": app.pause, "resume": app.resume, "skip": app.skip, "interrupt": app.interrupt,
               "stop": app.stop_after_current}

    @routes.post("/{action}")
    def act(action: str) -> Any:
        if action not in actions:
            raise NotFound(f"There is no {action!r}.")
        actions[action]()
        return {"paused": app.paused}

    return routes


def _gallery_routes(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/gallery")

    @routes.get("")
    def search(text: str = "", limit: int = 60, offset: int = 0) -> Any:
        rows = app.gallery.search(text, limit=max(1, min(limit, 200)), offset=max(0, offset))
        return _fresh({"pictures": [gallery_view(row) for row in rows], "count": app.gallery.count(text)})

    @routes.get("/{picture_id}")
    def picture(picture_id: int, size: int = 0) -> Response:
        return picture_response(app.gallery.get(picture_id).path, size)

    @routes.post("/{picture_id}/delete")
    def delete(picture_id: int) -> Any:
        app.gallery.delete(picture_id)
        return {}

    @routes.post("")
    def rescan() -> Any:
        app.gallery.rescan()
        return {}

    return routes


def _tool_routes(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.post("/tokens")
    def tokens(texts: Annotated[dict[str, str], Body()]) -> Any:
        backtrack = app.settings.get().comma_padding_backtrack
        model = chosen(app)
        words = app.host.words(model.variant)
        return {
            name: count_tokens(text[:MAX_PROMPT_CHARACTERS], model.vocabulary, backtrack, words)
            for name, text in texts.items()
        }

    @routes.post("/pnginfo")
    def pnginfo(picture: Annotated[bytes, Body(media_type="application/octet-stream")] = b"") -> Any:
        return read_picture(picture)

    @routes.post("/paste")
    def paste_into_form(request: Request, body: Annotated[dict[str, str], Body()]) -> Any:
        """Write an infotext into the stored form of a tab (``tab``), which it shows when it opens.

        ``init_image`` is the id of the picture to begin with, ``mode`` what to do with it.
        """
        generator = GENERATORS.get(body.get("tab", txt2img.TAB))
        if generator is None:
            raise NotFound(f"There is no tab {body['tab']!r}.")
        begun = sent_picture(body, app) if body.get("init_image") else {}
        text = body.get("infotext", "")
        # A picture that carries nothing, a photo, changes no prompt.
        silent = bool(begun) and not text.strip()
        pasted = Pasted({}) if silent else paste(generator.form(app), text, app, sent=True)
        values = to_storage(pasted.values)
        if begun:  # the strength in its infotext is that of the way there
            values.pop("denoising_strength", None)
        stored = app.forms.merge(owner_of(request), generator.tab, {**values, **begun})
        return {"pasted": pasted.problems, "inputs": input_routes.known(Inputs(app.folders.inputs), stored)}

    return routes


def _style_routes(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/styles")

    @routes.get("")
    def styles() -> Any:
        return _fresh({"styles": [asdict(style) for style in app.styles.all().values()]})

    @routes.post("")
    def save(body: Annotated[dict[str, str], Body()]) -> Any:
        app.styles.save(Style(body.get("name", ""), body.get("prompt", ""), body.get("negative_prompt", "")))
        return styles()

    @routes.post("/delete")
    def delete(body: Annotated[dict[str, str], Body()]) -> Any:
        app.styles.delete(body.get("name", ""))
        return styles()

    return routes


def source_id(job: Job, image: SavedImage) -> str:
    """Return the id of the stored picture that ``image`` was made from; raises ``NotFound`` where there is none."""
    if not isinstance(job.request, Task) or job.request.task != KIND:
        raise NotFound("This picture was not made from one in the tab Extras.")
    return source_of(codec.decode(Extras, job.request.values), image.index).image


def gallery_view(row: Any) -> dict[str, Any]:
    """Return a picture of the index with its addresses, relative to the page's root."""
    address = f"darkroom/page/gallery/{row.id}"
    return {"url": address, "thumbnail": f"{address}?size=384", "kind": "picture", "width": row.width,
            "height": row.height, "infotext": row.infotext, "created": row.created, "id": row.id}


def _fresh(content: Mapping[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers=FRESH)
