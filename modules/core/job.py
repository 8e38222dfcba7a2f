"""A request in the queue."""

from __future__ import annotations

from dataclasses import dataclass, field

from modules.core.request import Request
from modules.core.result import Failure, Progress, SavedImage

QUEUED, RUNNING, FINISHED, FAILED, CANCELLED, INTERRUPTED = (
    "queued", "running", "finished", "failed", "cancelled", "interrupted",
)
ENDED = (FINISHED, FAILED, CANCELLED, INTERRUPTED)


@dataclass(frozen=True)
class Job:
    """One row of the queue. Times are seconds since the epoch, 0 where it has not happened yet.

    ``blocking`` jobs belong to a caller who waits; they are cancelled, not run again, when the caller is gone after
    a restart. ``position`` orders queued jobs. ``progress`` is set only while the job runs.
    """

    id: str
    owner: str
    state: str
    request: Request
    blocking: bool = False
    position: float = 0.0
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    images: tuple[SavedImage, ...] = ()
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    progress: Progress | None = None
    origin: str = "page"
    parent: str = ""
    tags: tuple[str, ...] = field(default=())
