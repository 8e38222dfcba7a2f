"""What is said between the queue and an engine, and how it goes over a pipe: JSON and one binary part, no pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.result import Failure, Progress, SavedImage
from modules.core.task import Task


@dataclass(frozen=True)
class Run:
    """Do what ``request`` asks for; ``saved`` are pictures that an earlier, killed run of the same job already wrote.

    ``watching`` says whether somebody looks, until a ``Look`` says otherwise.
    """

    job_id: str
    # A task comes first: what it requires, no generation has.
    request: Task | Request
    saved: tuple[SavedImage, ...] = ()
    watching: bool = False


@dataclass(frozen=True)
class Interrupt:
    """Stop the running job within one model call, if it is ``job_id``."""

    job_id: str


@dataclass(frozen=True)
class Skip:
    """End the running batch of ``job_id`` early and go on with the next."""

    job_id: str


@dataclass(frozen=True)
class StopAfter:
    """Stop ``job_id`` once the running batch is finished."""

    job_id: str


@dataclass(frozen=True)
class Look:
    """Somebody looks (progress and previews are sent) or nobody does (neither is)."""

    watching: bool


@dataclass(frozen=True)
class Unload:
    """Free every loaded model once nothing runs."""


@dataclass(frozen=True)
class AskMemory:
    """Answer with ``Memory``."""


@dataclass(frozen=True)
class Close:
    """Finish nothing, free everything, exit."""


@dataclass(frozen=True)
class Ready:
    """The engine can take a job; ``device`` in words."""

    device: str = ""


@dataclass(frozen=True)
class Begun:
    """The engine has taken up the job; one that was handed to a process already dead is not lost but handed again."""

    job_id: str


@dataclass(frozen=True)
class Advanced:
    """The job has come this far."""

    job_id: str
    progress: Progress


@dataclass(frozen=True)
class Previewed:
    """A JPEG of at most 512 pixels a side; ``number`` counts the job's previews from 1."""

    job_id: str
    number: int
    jpeg: bytes = b""


@dataclass(frozen=True)
class Saved:
    """A picture or grid is on disk."""

    job_id: str
    image: SavedImage


@dataclass(frozen=True)
class Finished:
    """The job has ended by itself, or because it was asked to (``interrupted``); see ``Job`` for ``result``."""

    job_id: str
    interrupted: bool = False
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job has ended with an error; ``died`` says that the engine's process has, with whatever it was doing."""

    job_id: str
    failure: Failure
    died: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes: ``ram`` and, with an accelerator, ``cuda``, each a mapping of names to numbers."""

    values: Mapping[str, Any] = field(default_factory=dict)


Command = Run | Interrupt | Skip | StopAfter | Look | Unload | AskMemory | Close
Report = Ready | Begun | Advanced | Previewed | Saved | Finished | Failed | Memory

_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (Run, Interrupt, Skip, StopAfter, Look, Unload, AskMemory, Close,
                 Ready, Begun, Advanced, Previewed, Saved, Finished, Failed, Memory)
}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class EngineStatus:
    """How the engine does. ``state`` is ``starting``, ``ready``, ``busy``, ``restarting``, ``stopped``;
    ``message`` is for people, ``pid`` 0 where there is no process."""

    state: str
    message: str = ""
    device: str = ""
    pid: int = 0


class Engine(Protocol):
    """Whoever runs jobs, one at a time. Every method returns at once and may be called from any thread."""

    def start(self, report: Callable[[Report], None]) -> None:
        """Begin; ``report`` is called, from one thread at a time, with everything that happens.

        ``Ready`` comes when a job can be taken: at first, after each ``Finished`` or ``Failed``, and after a new
        start of the process.
        """

    def send(self, command: Command) -> None:
        """Pass ``command`` on; one for a job that does not run any more is ignored."""

    def status(self) -> EngineStatus:
        """Return how the engine does."""

    def close(self) -> None:
        """Stop for good, within seconds."""


def pack(message: Command | Report) -> bytes:
    """Return ``message`` as bytes: the length of its JSON (uint32, little-endian), the JSON, then raw bytes if any."""
    fields = codec.encode(message)
    blob = fields.pop("jpeg", b"") if isinstance(message, Previewed) else b""
    text = json.dumps({"kind": type(message).__name__, "fields": fields}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text + blob


def unpack(data: bytes) -> Any:
    """Return the message that ``pack`` made. Raises ``InvalidRequest`` for anything else."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        content = json.loads(data[_LENGTH.size:_LENGTH.size + length])
        kind, fields = _KINDS[content["kind"]], content["fields"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"A message of the engine cannot be read: {error!r}.") from None
    if kind is Previewed:
        fields["jpeg"] = data[_LENGTH.size + length:]
    return codec.decode(kind, fields)
