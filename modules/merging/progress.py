"""How far reading and writing of files is, told in megabytes."""

from __future__ import annotations

from collections.abc import Callable

from modules.core.result import Watch

MEGABYTE = 1e6


def advancing(watch: Watch, total: int) -> Callable[[int], None]:
    """Return what is called with the number of bytes that were just done of ``total``; it raises to cancel."""
    done, megabytes = 0, max(1, round(total / MEGABYTE))

    def advance(count: int) -> None:
        nonlocal done
        watch.check()
        done += count
        watch.step(megabytes * done / max(1, total), megabytes)
    return advance
