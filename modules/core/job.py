"""A request in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.grid import Grid
from modules.core.plot import shown
from modules.core.request import Request
from modules.core.result import Failure, Progress, SavedImage
from modules.core.task import Task

QUEUED, RUNNING, FINISHED, FAILED, CANCELLED, INTERRUPTED = (
    "queued", "running", "finished", "failed", "cancelled", "interrupted",
)
ENDED = (FINISHED, FAILED, CANCELLED, INTERRUPTED)


@dataclass(frozen=True)
class Job:
    """One row of the queue. Times are seconds since the epoch, 0 where it has not happened yet.

    ``blocking`` jobs belong to a caller who waits; they are cancelled, not run again, when the caller is gone after
    a restart. ``position`` orders queued jobs. ``progress`` is set only while the job runs. ``result`` is what a task
    has to say beside pictures: plain JSON values by name.
    """

    id: str
    owner: str
    state: str
    request: Request | Task
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
    result: Mapping[str, Any] = field(default_factory=dict)


def shown_images(job: Job) -> tuple[int, ...]:
    """Return the numbers of the job's images to show, in order; see ``shown``."""
    grid = job.request.grid if isinstance(job.request, Request) else Grid()
    return shown(job.images, grid, job.request.settings.return_grid)
