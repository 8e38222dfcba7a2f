"""Upscalers by name, as forms offer them and requests ask for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from modules.core.errors import InvalidRequest
from modules.imaging.resize import LATENT_UPSCALERS, RESAMPLERS

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
