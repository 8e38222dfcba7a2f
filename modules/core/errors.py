"""Errors a user can meet, each with the HTTP status that the API answers with."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 3


def examples(names: Sequence[str], most: int = SHOWN) -> str:
    """Return the first of ``names`` as a message shows them: "a, b, c, …"."""
    return f"{', '.join(names[:most])}{', …' if len(names) > most else ''}"


class DarkroomError(Exception):
    """An expected failure: ``message`` says what happened, ``hint`` what to do about it."""

    status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidRequest(DarkroomError):
    """A field of a request is malformed or out of range."""

    status = 422


class NotFound(DarkroomError):
    """Something named in a request does not exist."""

    status = 404


class Forbidden(DarkroomError):
    """The request is understood and refused: authentication, a path outside the folders, a locked setting."""

    status = 403


class InvalidModel(DarkroomError):
    """A model file is truncated, mislabelled, unsafe, incomplete or of an unknown architecture."""

    status = 422


class NoModel(DarkroomError):
    """There is no checkpoint to generate with."""

    status = 409


class OutOfMemory(DarkroomError):
    """Memory did not suffice, not even after freeing and trying again in a smaller way."""

    status = 507


class DiskFull(DarkroomError):
    """A file could not be written for want of space."""

    status = 507


class EngineDied(DarkroomError):
    """The engine's process ended in the middle of a job."""

    status = 503


class PluginFailed(DarkroomError):
    """A plugin raised; the message names it."""

    status = 500


class Interrupted(DarkroomError):
    """The job was asked to stop."""

    status = 409


class Skipped(DarkroomError):
    """The current batch was asked to end early; the job goes on with the next."""

    status = 409


ERRORS: dict[str, type[DarkroomError]] = {
    kind.__name__: kind
    for kind in (
        DarkroomError, InvalidRequest, NotFound, Forbidden, InvalidModel, NoModel, OutOfMemory,
        DiskFull, EngineDied, PluginFailed, Interrupted, Skipped,
    )
}
