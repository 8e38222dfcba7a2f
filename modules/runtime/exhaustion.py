"""Recognising and reporting exhausted memory."""

from __future__ import annotations

import torch

from modules.core.errors import OutOfMemory
from modules.runtime.device import available

ALLOCATOR_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory did not suffice; the CPU's allocator raises a bare RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in ALLOCATOR_MESSAGES)


def out_of_memory(doing: str, width: int, height: int, pictures: int, device: torch.device) -> OutOfMemory:
    """Return the error to show when freeing memory and trying again in a smaller way was not enough."""
    free = available(device) / 1024**3
    return OutOfMemory(
        f"Out of memory while {doing}: {width}x{height}, {pictures} at once, {free:.1f} GiB free on {device.type}.",
        "A smaller size or batch size needs less.",
    )
