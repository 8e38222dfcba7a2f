"""Exceptions as what a user reads."""

from __future__ import annotations

import signal

import psutil

from modules.core.errors import DarkroomError, EngineDied, OutOfMemory
from modules.core.result import Failure

GIB = 1024**3


def failure_of(error: BaseException, log: str = "") -> Failure:
    """Return ``error`` as a ``Failure``; unexpected ones name their class and, if given, the ``log`` file."""
    if not isinstance(error, DarkroomError) and is_out_of_memory(error):
        error = out_of_memory(error)
    if isinstance(error, DarkroomError):
        return Failure(type(error).__name__, error.message, error.hint, error.status)
    text = " ".join(str(error).split())[:500]
    hint = f"This should not happen. Details are in {log}." if log else "This should not happen."
    return Failure(type(error).__name__, f"{type(error).__name__}: {text}" if text else type(error).__name__, hint)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` is Python's, or torch's by its name, for memory that did not suffice."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def out_of_memory(error: BaseException) -> OutOfMemory:
    """Return the error to show for exhausted memory that nothing closer to its cause explained."""
    memory = psutil.virtual_memory()
    text = " ".join(str(error).split())[:300]
    free = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB of RAM are free now"
    return OutOfMemory(
        f"Memory ran out ({free}). {text}".strip(),
        "Try a smaller size or batch, or close other programs.",
    )


def death(exit_code: int | None) -> EngineDied:
    """Return the error for an engine's process that ended with ``exit_code`` (negative: by that signal)."""
    hint = "It is being started again; the queue goes on. Details may be in logs/engine.log."
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
        reason = {
            "SIGKILL": "The system or a user killed it, most likely for want of memory.",
            "SIGSEGV": "It crashed in native code, such as a driver.",
            "SIGABRT": "It crashed in native code, such as a driver.",
            "SIGBUS": "It crashed; a model file may have been cut short while it was in use.",
        }.get(name, "")
        if name == "SIGKILL":
            hint = f"A smaller size or model needs less. {hint}"
        return EngineDied(f"The engine's process was ended by {name}. {reason}".strip(), hint)
    return EngineDied(f"The engine's process ended by itself with exit code {exit_code}.", hint)
