"""What a look at a model file asks for: which file, and what of it is to be read."""

from __future__ import annotations

from dataclasses import dataclass

from modules.core.errors import InvalidRequest

KIND = "inspect"


@dataclass(frozen=True)
class Check:
    """The model called ``name`` among those of a ``kind``, and what to read all of it for.

    ``hashes`` computes those that are not known yet, ``values`` looks at every number.
    """

    kind: str
    name: str
    hashes: bool = True
    values: bool = True


def check(asked: Check) -> Check:
    """Return ``asked`` unchanged, or raise ``InvalidRequest`` where there is nothing to do."""
    if not (asked.hashes or asked.values):
        raise InvalidRequest("Nothing is to be read.", "Ask for hashes, for values, or for both.")
    return asked
