"""Callers who wait for their job: any number of them, without a thread each."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from modules.core.errors import EngineDied
from modules.core.job import ENDED, QUEUED, Job
from modules.web.live import Listener


async def ended(app: Any, job_id: str, request: Request) -> Job:
    """Return the job once it has ended.

    If the caller goes away before the job has begun it is cancelled; one that runs goes on. Raises ``EngineDied``
    when the server shuts down.
    """
    caller = asyncio.create_task(_cancel_without_caller(app, job_id, request))
    try:
        with Listener(app, job_id, looks=False) as listener:
            while (event := await listener.get()) is not None:
                if event.job is not None and event.job.state in ENDED:
                    return event.job
    finally:
        caller.cancel()
    raise EngineDied("The server is shutting down.", "Try again once it is back.")


async def _cancel_without_caller(app: Any, job_id: str, request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    await run_in_threadpool(_cancel_queued, app, job_id)


def _cancel_queued(app: Any, job_id: str) -> None:
    if app.job(job_id).state == QUEUED:
        app.cancel(job_id)
