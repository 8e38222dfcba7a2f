"""What comes back: finished pictures, progress and the interface through which a running job is watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modules.core.plan import ModelRef

# The largest picture that is written, for the gallery and PNG Info read no larger one.
# Kinds of pictures.
PICTURE, GRID = "picture", "grid"
MAX_PIXELS = 160 * 1024 * 1024


@dataclass(frozen=True)
class FinishedPicture:
    """A decoded picture before it is saved.

    ``image`` is a PIL image. ``parameters`` are the infotext's entries in order; hashes of model and VAE, and of the
    checkpoints whose paths ``others`` has by entry, are put in when the file is written, so that sampling never waits
    for them. ``stage`` is empty for a result, and for what is kept of the way there the end of its file's name.
    ``basename`` is the name, without its suffix, of the file that a task's picture was made from. ``kind`` is as in
    ``SavedImage``.
    """

    index: int
    image: Any
    prompt: str
    negative_prompt: str
    seed: int
    subseed: int
    model: ModelRef
    parameters: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    others: Mapping[str, str] = field(default_factory=dict)
    stage: str = ""
    basename: str = ""
    kind: str = PICTURE


@dataclass(frozen=True)
class SavedImage:
    """A picture or grid on disk. ``path`` is absolute; ``kind`` is ``picture`` or ``grid``."""

    path: str
    kind: str
    width: int
    height: int
    seed: int
    infotext: str
    index: int = 0


@dataclass(frozen=True)
class Part:
    """What one part of a job has come to: its state, as ``Job.state``, and its pictures."""

    state: str
    images: tuple[SavedImage, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where a job stands. One ``step`` is one sampler step; ``fraction`` is 0 to 1 over the whole job.

    ``eta`` is in seconds, None while unknown. ``preview`` counts the previews made so far.
    """

    picture: int = 0
    pictures: int = 1
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    eta: float | None = None
    phase: str = ""
    preview: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a job failed: the error's class, its message, what to do, and the status the API answers with."""

    error: str
    message: str
    hint: str = ""
    status: int = 500


@dataclass(frozen=True)
class Outcome:
    """What running a job came to: ``complete`` is False if it stopped because it was asked to.

    ``result`` is what a task has to say beside pictures: plain JSON values by name.
    """

    complete: bool = True
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)


class Watch(Protocol):
    """What the engine tells, and asks of, whoever runs it. Every method is cheap enough for each model call."""

    def check(self) -> None:
        """Raise ``Interrupted`` or ``Skipped`` if that was asked for; called before every model call."""

    def stopping(self) -> bool:
        """Return whether to stop once the current batch is finished."""

    def phase(self, text: str) -> None:
        """Say what is going on outside sampling, such as loading a model."""

    def batch(self, first: int, pictures: int) -> None:
        """A batch of so many ``pictures`` begins; ``first`` is the index of its first one."""

    def step(self, done: float, total: int) -> None:
        """``done`` of ``total`` sampler steps of the batch, all passes counted, are complete."""

    def wants_preview(self) -> bool:
        """Return whether somebody is looking and enough time has passed since the last preview."""

    def preview(self, image: Any) -> None:
        """Show a PIL image of the state of sampling."""

    def picture(self, picture: FinishedPicture) -> None:
        """A picture is decoded; it is saved in the background, in order, and reported once it is on disk."""
