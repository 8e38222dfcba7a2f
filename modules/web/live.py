"""A job's events as server-sent events, at most ten a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from modules.app.events import Event
from modules.core.job import ENDED
from modules.web.views import job_view

INTERVAL = 0.1
HEARTBEAT = 15.0
NAMES = {"queued": "progress", "started": "progress", "queue": ""}


async def job_events(app: Any, job_id: str, *, interval: float = INTERVAL) -> AsyncIterator[str]:
    """Yield the state of a job and then its events until it has ended, as text of ``text/event-stream``.

    The mailbox is looked into every ``interval`` seconds: what came faster was already replaced there by the newest
    of its kind, and no thread waits. A comment every 15 seconds shows a proxy, and us, that somebody is there.
    """
    with app.subscribe(job_id) as subscription:
        state, silence = "", 0.0
        while state not in ENDED and not subscription.closed:
            event = subscription.get(0)
            if event is None:
                await asyncio.sleep(interval)
                silence += interval
                if silence >= HEARTBEAT:
                    silence = 0.0
                    yield ": still here\n\n"
                continue
            silence = 0.0
            state = event.job.state if event.job else state
            yield message(event)


def message(event: Event) -> str:
    """Return one event as text: its name is ``progress``, ``preview``, ``image`` or ``ended``."""
    name = NAMES.get(event.kind, event.kind)
    if not name or event.job is None:
        return ""
    return f"event: {name}\ndata: {json.dumps(job_view(event.job))}\n\n"
