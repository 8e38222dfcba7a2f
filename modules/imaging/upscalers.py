"""Upscalers by name, as forms offer them and requests ask for them, and what they are told of their work."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings
from modules.imaging.resize import LATENT_UPSCALERS, RESAMPLERS, Upscaler

# Called with how much is done and how much there is in all, of one pass over a picture; raises to stop.
Advance = Callable[[int, int], None]


def ignored(done: int, total: int) -> None:
    """Take note of nothing."""


@dataclass(frozen=True)
class Occasion:
    """What a picture is enlarged for: the ``settings`` in force, what was said of it, and whom to tell of progress.

    ``seed`` is that of whatever has to be drawn.
    """

    settings: Settings = field(default_factory=Settings)
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    advance: Advance = ignored


@runtime_checkable
class Told(Protocol):
    """An upscaler that minds what it works for."""

    def told(self, occasion: Occasion) -> Upscaler:
        """Return the upscaler for ``occasion``."""


def told(upscaler: Upscaler, occasion: Occasion) -> Upscaler:
    """Return ``upscaler`` for ``occasion``; itself where it minds none."""
    return upscaler.told(occasion) if isinstance(upscaler, Told) else upscaler


# Those that resize the latent first, then those that resize the decoded picture.
UPSCALERS = (*LATENT_UPSCALERS, *RESAMPLERS)


def find_upscaler(name: str, more: Iterable[str] = ()) -> str:
    """Return the proper name of the upscaler called ``name`` in any case, ``more`` being names that others add.

    Raises ``InvalidRequest`` with near names.
    """
    every = (*UPSCALERS, *more)
    wanted = " ".join(name.lower().split())
    for known in every:
        if known.lower() == wanted:
            return known
    near = difflib.get_close_matches(wanted, [known.lower() for known in every], n=3, cutoff=0.4)
    hint = [known for known in every if known.lower() in near] or every
    raise InvalidRequest(f"There is no upscaler {name[:100]!r}.", f"Use {', '.join(hint)}.")
