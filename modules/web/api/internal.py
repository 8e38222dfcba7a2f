"""A1111's ``/internal``: what clients ask to see whether the server lives, and how far a task of theirs is."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter

from modules.core.errors import NotFound
from modules.core.job import ENDED, QUEUED, RUNNING, Job
from modules.web.api.sdapi_models import PendingTasks, TaskAnswer, TaskRequest

MOST_LISTED = 10_000


def router(app: Any) -> APIRouter:
    """Return all routes of ``/internal`` for ``app``."""
    routes = APIRouter(prefix="/internal", tags=["A1111's API"], strict_content_type=False)

    @routes.get("/ping")
    async def ping() -> dict[str, Any]:
        """Answer at once, whatever goes on."""
        return {}

    @routes.get("/pending-tasks")
    def pending_tasks() -> PendingTasks:
        """List the ids of jobs that wait."""
        tasks = _waiting(app)
        return PendingTasks(size=len(tasks), tasks=tasks)

    @routes.post("/progress")
    def progress(body: TaskRequest) -> TaskAnswer:
        """Return how far the job ``id_task`` is; asking makes the engine report progress and previews."""
        app.look()
        try:
            job: Job = app.job(body.id_task or "")
        except NotFound:
            return TaskAnswer(active=False, queued=False, completed=False, id_live_preview=-1, textinfo="Waiting...")
        if job.state != RUNNING or job.progress is None:
            return TaskAnswer(active=job.state == RUNNING, queued=job.state == QUEUED, completed=job.state in ENDED,
                              id_live_preview=-1, textinfo=_place(app, job))
        return _running(app, job, body)

    return routes


def _running(app: Any, job: Job, body: TaskRequest) -> TaskAnswer:
    progress = job.progress
    assert progress is not None
    preview = app.preview(job.id) if body.live_preview is not False else None
    number, jpeg = preview or (body.id_live_preview, b"")
    fresh = preview is not None and number != body.id_live_preview
    return TaskAnswer(
        active=True, queued=False, completed=False, progress=progress.fraction, eta=progress.eta,
        live_preview=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if fresh else None,
        id_live_preview=number, textinfo=progress.phase or None,
    )


def _waiting(app: Any) -> list[str]:
    return [job.id for job in app.jobs(states=(QUEUED,), limit=MOST_LISTED)]


def _place(app: Any, job: Job) -> str:
    waiting = _waiting(app) if job.state == QUEUED else []
    if job.id in waiting:
        return f"In queue: {waiting.index(job.id) + 1}/{len(waiting)}"
    return "Waiting..."
