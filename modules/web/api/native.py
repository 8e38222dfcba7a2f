"""Our own API, ``/darkroom/v1``: submit, follow by events, fetch pictures, cancel; nothing in it waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response, StreamingResponse

from modules import __version__
from modules.app.events import QUEUE, Event
from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.job import QUEUED, RUNNING, Job
from modules.core.request import Request as Generation
from modules.imaging.resize import LATENT_UPSCALERS
from modules.library.files import ModelFile
from modules.library.inputs import Inputs
from modules.prompts.styles import Style
from modules.sampling.schedules import SCHEDULES
from modules.web.answers import owner_of
from modules.web.api import differences, inspections, merges
from modules.web.api import native_models as models
from modules.web.api.overrides import overridden
from modules.web.live import event_stream, job_events, message
from modules.web.pictures import picture_of, picture_response, preview_response
from modules.web.views import Addresses, extension_views, job_view

PREFIX = "/darkroom/v1"
ORIGIN = "api"
PICTURES: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}, "image/jpeg": {}, "image/webp": {}}}}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
State = Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]


def router(app: Any) -> APIRouter:
    """Return all routes of ``/darkroom/v1`` for ``app``."""
    failure = {"model": models.Failed, "description": "Why not, and what to do."}
    routes = APIRouter(prefix=PREFIX, tags=["Darkroom's API"], responses={"default": failure})
    for part in (_jobs(app), _inputs(app), _following(app), _steering(app), _queue(app), _lists(app), _styles(app),
                 _settings(app), _machine(app), merges.router(app, detail), inspections.router(app, detail),
                 differences.router(app, detail)):
        routes.include_router(part)
    return routes


def _jobs(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.post("/jobs", status_code=202)
    def submit(body: models.Generation, request: Request, response: Response) -> models.Submitted:
        """Queue a generation and answer at once."""
        job = app.submit(generation(app, body), owner=owner_of(request), origin=ORIGIN)
        view = detail(job, request)
        response.headers["Location"] = view["links"]["self"]
        return models.Submitted(**view)

    @routes.get("/jobs")
    def jobs(request: Request, state: Annotated[list[State] | None, Query()] = None, mine: bool = False,
             limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0, le=10**9)] = 0
             ) -> models.Jobs:
        """List jobs: the running one, then the queue in order, then what has ended, latest first."""
        owner = owner_of(request) if mine else None
        found = app.jobs(owner=owner, states=state, limit=limit + 1, offset=offset)
        return models.Jobs(jobs=[detail(job, request) for job in found[:limit]], limit=limit, offset=offset,
                           more=len(found) > limit)

    @routes.get("/jobs/{job_id}")
    def job(job_id: str, request: Request) -> models.Job:
        """Return a job with its progress, its pictures and its request."""
        return models.Job(**detail(app.job(job_id), request))

    @routes.delete("/jobs/{job_id}")
    def cancel(job_id: str, request: Request) -> models.Job:
        """Take a job out of the queue, or interrupt it; one that has ended stays as it is."""
        return models.Job(**detail(app.cancel(job_id), request))

    return routes


def _inputs(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/inputs")
    inputs = Inputs(app.folders.inputs)

    @routes.post("")
    def bring(picture: Annotated[bytes, Body(media_type="application/octet-stream")] = b"") -> models.Input:
        """Store a picture or a mask to begin from; ``init_images`` and ``mask`` of a job take its id."""
        return models.Input(**asdict(inputs.put(picture)))

    @routes.get("/{input_id}", responses=PICTURES, response_class=Response)
    def show(input_id: str) -> Response:
        """Return a stored picture as a PNG without metadata."""
        return picture_response(str(inputs.path(input_id)), 0)

    return routes


def generation(app: Any, body: Any) -> Generation:
    """Return the request of ``body``; its settings are overrides of those in force.

    Raises ``InvalidRequest`` naming the field, and ``NotFound`` for a model.
    """
    values = {name: value for name, value in body if name in body.model_fields_set}
    settings = overridden(app, values.pop("settings", None) or {})
    if "grid" in values:
        values["grid"] = values["grid"].model_dump()
    return codec.decode(Generation, {**values, "settings": codec.encode(settings)})


def addresses(request: Request) -> Addresses:
    """Return where jobs are, under the path that the server is reached at."""
    return Addresses(f"{str(request.scope.get('root_path') or '').rstrip('/')}{PREFIX}/jobs", "images")


def detail(job: Job, request: Request) -> dict[str, Any]:
    """Return a job with its request and the addresses of what can be done with it."""
    at = addresses(request)
    own = f"{at.jobs}/{job.id}"
    links = {"self": own, "events": f"{own}/events", "preview": f"{own}/preview", "interrupt": f"{own}/interrupt",
             "skip": f"{own}/skip", "stop_after": f"{own}/stop-after"}
    return job_view(job, at) | {"request": codec.encode(job.request), "links": links}


def _following(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.get("/jobs/{job_id}/events", responses=STREAM, response_class=StreamingResponse)
    def events(job_id: str, request: Request) -> StreamingResponse:
        """Follow a job by server-sent events (``progress``, ``preview``, ``image``, ``ended``), each with the job.

        The first tells the present state, so nothing is missed; the stream ends with ``ended``.
        """
        app.job(job_id)
        tell = partial(message, view=_without_request(request))
        return event_stream(job_events(app, job_id, tell=tell))

    @routes.get("/events", responses=STREAM, response_class=StreamingResponse)
    def all_events(request: Request) -> StreamingResponse:
        """Follow all jobs; ``queue`` says that order, pause or engine have changed."""
        return event_stream(job_events(app, None, tell=partial(tell_all, view=_without_request(request))))

    @routes.get("/jobs/{job_id}/images/{index}", responses=PICTURES, response_class=Response)
    def image(job_id: str, index: int, size: Annotated[int, Query(ge=0, le=1024)] = 0) -> Response:
        """Return a picture of a job, or with ``size`` a JPEG of at most so many pixels a side."""
        return picture_response(picture_of(app.job(job_id), index).path, size)

    @routes.get("/jobs/{job_id}/preview", responses=PICTURES, response_class=Response)
    def preview(job_id: str) -> Response:
        """Return the running job's newest preview as a JPEG, or 204 where there is none."""
        app.job(job_id)
        return preview_response(app.preview(job_id))

    return routes


def tell_all(event: Event, view: Callable[[Job], Any]) -> str:
    """Return one event as text, those of the queue included."""
    return f"event: {QUEUE}\ndata: {{}}\n\n" if event.kind == QUEUE else message(event, view)


def _without_request(request: Request) -> Callable[[Job], dict[str, Any]]:
    return partial(job_view, addresses=addresses(request))


def _steering(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.post("/jobs/{job_id}/interrupt")
    def interrupt(job_id: str, request: Request) -> models.Job:
        """Stop a job within one model call, if it runs."""
        if app.job(job_id).state != RUNNING:
            raise InvalidRequest(f"The job {job_id!r} does not run.", "DELETE takes a queued one out of the queue.")
        return models.Job(**detail(app.cancel(job_id), request))

    @routes.post("/jobs/{job_id}/skip")
    def skip(job_id: str, request: Request) -> models.Job:
        """End the running batch of a job early and go on with the next."""
        app.skip(job_id)
        return models.Job(**detail(app.job(job_id), request))

    @routes.post("/jobs/{job_id}/stop-after")
    def stop_after(job_id: str, request: Request) -> models.Job:
        """Stop a job once its batch is finished."""
        app.stop_after_current(job_id)
        return models.Job(**detail(app.job(job_id), request))

    return routes


def _queue(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/queue")

    def view(request: Request) -> models.Queue:
        jobs = app.jobs(states=(RUNNING, QUEUED), limit=1000)
        return models.Queue(paused=app.paused, running=[detail(job, request) for job in jobs if job.state == RUNNING],
                            queued=[detail(job, request) for job in jobs if job.state == QUEUED])

    @routes.get("")
    def queue(request: Request) -> models.Queue:
        """Return what runs and what waits, in order."""
        return view(request)

    @routes.post("/pause")
    def pause(request: Request) -> models.Queue:
        """Begin no further job; what runs goes on."""
        app.pause()
        return view(request)

    @routes.post("/resume")
    def resume(request: Request) -> models.Queue:
        """Begin queued jobs again."""
        app.resume()
        return view(request)

    @routes.post("/move")
    def move(body: models.Move, request: Request) -> models.Queue:
        """Put a queued job before another, or last."""
        app.move(body.id, body.before)
        return view(request)

    return routes


def _lists(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.get("/models")
    def checkpoints() -> list[models.Model]:
        """List the checkpoints on disk."""
        return [_model(one) for one in app.library.checkpoints()]

    @routes.get("/vaes")
    def vaes() -> list[models.Model]:
        """List the VAEs on disk."""
        return [_model(one) for one in app.library.vaes()]

    @routes.get("/samplers")
    def samplers() -> list[models.Sampler]:
        """List the samplers."""
        return [models.Sampler(name=one.name, aliases=list(one.aliases), schedule=one.schedule,
                               calls_per_step=one.calls_per_step, noise=one.noise) for one in app.host.samplers()]

    @routes.get("/schedules")
    def schedules() -> list[models.Schedule]:
        """List the schedules."""
        return [models.Schedule(name=one.name, label=one.label, aliases=list(one.aliases)) for one in SCHEDULES]

    @routes.get("/upscalers")
    def upscalers() -> list[models.Upscaler]:
        """List the upscalers; those of latents are hires fix's alone."""
        return [models.Upscaler(name=name, space="latent" if name in LATENT_UPSCALERS else "pixels")
                for name in (*LATENT_UPSCALERS, *app.upscalers())]

    @routes.get("/axes")
    def axes(kind: Literal["txt2img", "img2img"] = "txt2img") -> list[models.Axis]:
        """List the axes that ``grid`` can have, with the values that there are for them."""
        return [models.Axis(label=one.label, kind=one.kind, cost=one.cost, choices=list(app.choices(one)))
                for one in app.axes(kind)]

    @routes.get("/extensions")
    def extensions() -> list[models.Extension]:
        """List the extensions that were found, with why one could not be loaded."""
        return [models.Extension(**one) for one in extension_views(app)]

    return routes


def _styles(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/styles")

    @routes.get("")
    def styles() -> list[models.Style]:
        """List the styles of styles.csv in its order."""
        return [models.Style(**asdict(style)) for style in app.styles.all().values()]

    @routes.put("/{name:path}")
    def save(name: str, body: models.StyleTexts) -> models.Style:
        """Add a style, or replace the one of that name."""
        style = Style(name, body.prompt, body.negative_prompt)
        app.styles.save(style)
        return models.Style(**asdict(style))

    @routes.delete("/{name:path}")
    def delete(name: str) -> list[models.Style]:
        """Remove a style; return those that are left."""
        app.styles.delete(name)
        return styles()

    return routes


def _model(file: ModelFile) -> models.Model:
    return models.Model(title=file.title, name=file.name, sha256=file.sha256 or None, size=file.size, mtime=file.mtime)


def _settings(app: Any) -> APIRouter:
    routes = APIRouter(prefix="/settings")

    @routes.get("")
    def settings() -> models.Settings:
        """Return every setting."""
        return models.Settings(**codec.encode(app.settings.get()))

    @routes.put("")
    def change(body: Annotated[dict[str, Any], Body()]) -> models.Settings:
        """Change the given settings, all of them or none, and return every one."""
        return models.Settings(**codec.encode(app.settings.update(body, by_api=True)))

    return routes


def _machine(app: Any) -> APIRouter:
    routes = APIRouter()

    @routes.get("/memory")
    def memory() -> dict[str, Any]:
        """Return memory in bytes: ``ram`` and, with an accelerator, ``cuda``."""
        return dict(app.memory())

    @routes.get("/status")
    def status() -> models.Status:
        """Return how the engine and the queue do."""
        running = app.running()
        return models.Status(
            version=__version__, engine=asdict(app.engine_status()), paused=app.paused,
            running=running.id if running else None, queued=len(app.jobs(states=(QUEUED,), limit=10_000)),
        )

    return routes
