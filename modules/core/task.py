"""Work in the queue that is not a generation: upscaling pictures, merging checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.request import MAX_PICTURES, Request
from modules.core.settings import Settings


@dataclass(frozen=True)
class Task:
    """What a job of another kind than generation is to do.

    ``task`` names the kind; ``values`` are the fields of the kind's own frozen dataclass as plain JSON values.
    ``title`` and ``summary`` are what the queue's list shows. ``pictures`` is how many pictures or steps of equal
    length progress is counted in.
    """

    task: str
    values: Mapping[str, Any]
    title: str = ""
    summary: str = ""
    pictures: int = 1
    settings: Settings = field(default_factory=Settings)
    save_images: bool = True

    @property
    def kind(self) -> str:
        """The kind of job, as ``Request.kind`` is."""
        return self.task


def check_task(task: Task) -> Task:
    """Return ``task`` unchanged, or raise ``InvalidRequest``."""
    if not 1 <= task.pictures <= MAX_PICTURES:
        raise InvalidRequest(f"pictures must be from 1 to {MAX_PICTURES}, not {task.pictures}.")
    return task


def generation_of(asked: Request | Task) -> Request:
    """Return ``asked`` where it is a generation; raises ``InvalidRequest`` for a job of another kind."""
    if isinstance(asked, Task):
        raise InvalidRequest(f"This is a job of the kind {asked.task!r}, not a generation.")
    return asked
