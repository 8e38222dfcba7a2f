"""Regular expressions of users, matched with names of tensors in bounded time."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable

import regex

from modules.core.errors import InvalidRequest

MAX_PATTERN, MAX_REPEATS = 1000, 10_000
# In seconds, for all names together: a checkpoint has some thousand.
PATIENCE = 5.0


def check_pattern(text: str) -> None:
    """Raise ``InvalidRequest`` where ``text`` is no regular expression, or too long for one."""
    _compiled(text)


def matching(text: str, names: Iterable[str], patience: float = PATIENCE) -> frozenset[str]:
    """Return those of ``names`` in which the regular expression ``text`` is found, none for an empty one.

    Raises ``InvalidRequest`` for a bad expression, and for one that needs longer than ``patience`` seconds.
    """
    if not text:
        return frozenset()
    pattern, deadline = _compiled(text), time.monotonic() + patience
    try:
        return frozenset(name for name in names
                         if pattern.search(name, timeout=max(1e-3, deadline - time.monotonic())))
    except TimeoutError:
        raise InvalidRequest(f"{text[:80]!r} takes too long to be matched.",
                             "Repetitions inside of repetitions do that.") from None


def _compiled(text: str) -> regex.Pattern[str]:
    if len(text) > MAX_PATTERN:
        raise InvalidRequest(f"A regular expression may have {MAX_PATTERN:,} characters; this one has {len(text):,}.")
    # Repetitions are written out when a pattern is compiled, and multiply where they stand inside of each other.
    if math.prod(max(1, int(count[:9])) for count in re.findall(r"\{[^}0-9]*(?:\d+\s*,\s*)?(\d+)", text)) > MAX_REPEATS:
        raise InvalidRequest(f"The repetitions of a regular expression may come to {MAX_REPEATS:,} in all.",
                             "Write + or * where any number will do.")
    try:
        return regex.compile(text)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise InvalidRequest(f"{text[:80]!r} is no regular expression: {error}.") from None
