"""What happens to jobs, told to whoever subscribed, without ever waiting for a slow listener."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from modules.core.job import ENDED, RUNNING, Job

QUEUED_EVENT, STARTED, PROGRESS, PREVIEW, IMAGE, ENDED_EVENT, QUEUE = (
    "queued", "started", "progress", "preview", "image", "ended", "queue",
)


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    ``kind`` is ``queued``, ``started``, ``progress``, ``preview``, ``image``, ``ended`` or ``queue`` (order, pause or
    the engine changed; no job). ``job`` is a snapshot made at that moment, with its progress while it runs.
    """

    kind: str
    job_id: str = ""
    job: Job | None = None


class Subscription:
    """A listener's own mailbox; a context manager, usable from any thread.

    At most one event of each kind waits per job: a newer snapshot replaces the older, so a slow listener misses
    steps of progress but no change of state, and the mailbox stays bounded. ``looks`` says whether somebody looks at
    progress and previews; ``on_news`` is called, from any thread, when there is something to get or all is over.
    """

    def __init__(self, job_id: str | None, on_close: Callable[[Subscription], None], *, looks: bool = True,
                 on_news: Callable[[], None] | None = None) -> None:
        self.job_id = job_id
        self.looks = looks
        self._on_news = on_news
        self._on_close = on_close
        self._waiting: dict[tuple[str, str], Event] = {}
        self._changed = threading.Condition()
        self._closed = False

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether no further event will ever come."""
        return self._closed

    def put(self, event: Event) -> None:
        """Leave ``event`` in the mailbox, in place of a waiting one of the same kind and job."""
        with self._changed:
            if self._closed:
                return
            key = (event.kind, event.job_id)
            self._waiting.pop(key, None)
            self._waiting[key] = event
            self._changed.notify_all()
        self._tell()

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event, or None after ``timeout`` seconds (None waits) or once the subscription is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._waiting and not self._closed:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                self._changed.wait(remaining)
            if not self._waiting:
                return None
            return self._waiting.pop(next(iter(self._waiting)))

    def close(self) -> None:
        """Stop listening and wake whoever waits."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._on_close(self)
        self._tell()

    def _tell(self) -> None:
        if self._on_news is not None:
            self._on_news()


class Hub:
    """Hands each event to the subscriptions that asked for it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()

    def subscribe(self, job_id: str | None = None, *, looks: bool = True,
                  on_news: Callable[[], None] | None = None) -> Subscription:
        """Return a new subscription to one job, or to everything."""
        subscription = Subscription(job_id, self._remove, looks=looks, on_news=on_news)
        with self._lock:
            self._subscriptions += (subscription,)
        return subscription

    def publish(self, event: Event) -> None:
        """Hand ``event`` to every subscription to its job and to those that take everything."""
        for subscription in self._subscriptions:
            if subscription.job_id is None or subscription.job_id == event.job_id:
                subscription.put(event)

    def watched(self, job_id: str) -> bool:
        """Return whether anybody looks at this job."""
        return any(item.looks and item.job_id in (None, job_id) for item in self._subscriptions)

    def close(self) -> None:
        """Close every subscription."""
        for subscription in self._subscriptions:
            subscription.close()

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(item for item in self._subscriptions if item is not subscription)


def present(job: Job) -> Event:
    """Return the event that tells a newcomer the state of ``job``."""
    kind = ENDED_EVENT if job.state in ENDED else STARTED if job.state == RUNNING else QUEUED_EVENT
    return Event(kind, job.id, job)
