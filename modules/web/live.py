"""A job's events for asyncio, and as server-sent events, at most ten a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi.responses import StreamingResponse

from modules.app.events import ENDED_EVENT, IMAGE, Event
from modules.core.job import ENDED
from modules.web.pictures import FRESH
from modules.web.views import job_view

INTERVAL = 0.1
HEARTBEAT = 15.0
NAMES = {"queued": "progress", "started": "progress", "queue": ""}


class Listener:
    """A subscription that is waited for without a thread; a context manager inside a running event loop."""

    def __init__(self, app: Any, job_id: str | None = None, *, looks: bool = True) -> None:
        self._news = asyncio.Event()
        wake = partial(_wake, asyncio.get_running_loop(), self._news)
        self._subscription = app.subscribe(job_id, looks=looks, on_news=wake)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._subscription.close()

    @property
    def closed(self) -> bool:
        """Whether no further event will ever come."""
        return bool(self._subscription.closed)

    def waiting(self) -> Event | None:
        """Return an event that is already there, or None."""
        event: Event | None = self._subscription.get(0)
        return event

    async def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event, or None after ``timeout`` seconds (None waits) or once all is over."""
        while True:
            self._news.clear()
            event = self.waiting()
            if event is not None or self.closed:
                return event
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                return None


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    # The loop may have ended before the subscription.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(news.set)


def event_stream(texts: AsyncIterator[str]) -> StreamingResponse:
    """Return an answer that streams ``texts`` as they come, past proxies that would hold them back."""
    return StreamingResponse(texts, media_type="text/event-stream", headers=FRESH | {"X-Accel-Buffering": "no"})


def message(event: Event, view: Callable[..., Any] = job_view) -> str:
    """Return one event as text: its name is ``progress``, ``preview``, ``image`` or ``ended``."""
    name = NAMES.get(event.kind, event.kind)
    if not name or event.job is None:
        return ""
    return f"event: {name}\ndata: {json.dumps(view(event.job))}\n\n"


async def job_events(app: Any, job_id: str | None, *, interval: float = INTERVAL,
                     tell: Callable[[Event], str] = message) -> AsyncIterator[str]:
    """Yield the state of a job and then its events until it has ended, as text of ``text/event-stream``.

    After each event comes a pause of ``interval`` seconds: what happens meanwhile is replaced in the mailbox by the
    newest of its kind. A comment every 15 seconds shows a proxy, and us, that somebody is there. Without ``job_id``
    events of all jobs are told, and there is no end.
    """
    with Listener(app, job_id) as listener:
        while not listener.closed:
            first = await listener.get(HEARTBEAT)
            if first is None:
                yield ": still here\n\n"
                continue
            events = [first, *iter(listener.waiting, None)]
            texts = [text for event in _worth_telling(events) if (text := tell(event))]
            for text in texts:
                yield text
            if job_id is not None and any(event.job and event.job.state in ENDED for event in events):
                return
            await asyncio.sleep(interval * len(texts))


def _worth_telling(events: list[Event]) -> list[Event]:
    """Leave out the progress of jobs whose end is among ``events``."""
    ended = {event.job_id for event in events if event.kind == ENDED_EVENT}
    return [event for event in events if event.job_id not in ended or event.kind in (IMAGE, ENDED_EVENT)]
