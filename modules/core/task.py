"""Work in the queue that is not a generation: upscaling pictures, merging checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.request import MAX_PICTURES, Request
from modules.core.result import Part
from modules.core.settings import Settings


@dataclass(frozen=True)
class Task:
    """What a job of another kind than generation is to do.

    ``task`` names the kind; ``values`` are the fields of the kind's own frozen dataclass as plain JSON values.
    ``title`` and ``summary`` are what the queue's list shows. ``pictures`` is how many pictures or steps of equal
    length progress is counted in. ``gathers`` says that it is the last part of a job and needs what the others have
    made: ``values`` has them under ``parts`` when it runs. ``tab`` is the tab to whose pictures its own belong, empty
    for its own. With ``folder``, below that of the kind's results, pictures are saved there under their sources' names.
    Of a job that is not ``shown`` the page says only how many pictures were saved.
    """

    task: str
    values: Mapping[str, Any]
    title: str = ""
    summary: str = ""
    pictures: int = 1
    settings: Settings = field(default_factory=Settings)
    save_images: bool = True
    gathers: bool = False
    tab: str = ""
    folder: str = ""
    shown: bool = True

    @property
    def kind(self) -> str:
        """The kind of job, as ``Request.kind`` is."""
        return self.tab or self.task


def check_task(task: Task) -> Task:
    """Return ``task`` unchanged, or raise ``InvalidRequest``."""
    if not 1 <= task.pictures <= MAX_PICTURES:
        raise InvalidRequest(f"pictures must be from 1 to {MAX_PICTURES}, not {task.pictures}.")
    return task


def gathered(task: Task, parts: Sequence[Part]) -> Task:
    """Return ``task`` with what the earlier ``parts`` of its job have come to."""
    return replace(task, values={**task.values, "parts": codec.encode(tuple(parts))})


def generation_of(asked: Request | Task) -> Request:
    """Return ``asked`` where it is a generation; raises ``InvalidRequest`` for a job of another kind."""
    if isinstance(asked, Task):
        raise InvalidRequest(f"This is a job of the kind {asked.task!r}, not a generation.")
    return asked
