"""``<lora:name:te:unet:dyn>`` with ``te=``, ``unet=``, ``dyn=``, ``lbw=``, ``start=`` and ``stop=``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from modules.adapters.blocks import block_weights
from modules.core.errors import InvalidRequest
from modules.prompts.tags import Tag

KNOWN = ("te", "unet", "dyn", "lbw", "start", "stop")
LARGEST = 100.0


@dataclass(frozen=True)
class Call:
    """What a tag asks for: the network's name, its weights, and from which step on to before which it is in force.

    ``rank`` is how many ranks count, None for all; ``blocks`` are weights by block, empty for 1 everywhere.
    """

    name: str
    text_encoder: float = 1.0
    denoiser: float = 1.0
    rank: int | None = None
    blocks: Mapping[str, float] = field(default_factory=dict)
    start: int = 0
    stop: int | None = None

    def in_force(self, step: int) -> bool:
        """Return whether the network takes part in ``step``."""
        return step >= self.start and (self.stop is None or step < self.stop)

    def weight(self, component: str, block: str) -> float:
        """Return the weight of a change in ``block`` of ``component``."""
        own = self.denoiser if component == "unet" else self.text_encoder
        return own * (self.blocks.get(block, 0.0) if self.blocks else 1.0)

    def steps_end(self, steps: int) -> int:
        """Return before which of ``steps`` steps it ends."""
        return steps if self.stop is None else min(self.stop, steps)


def read_call(tag: Tag) -> Call:
    """Return what ``tag`` asks for; raises ``InvalidRequest`` naming what cannot be understood."""
    given, named = tag.positional, tag.named
    unknown = [name for name in named if name not in KNOWN]
    if unknown:
        raise InvalidRequest(f"{tag}: {', '.join(unknown)} is unknown.", f"Known are {', '.join(KNOWN)}.")
    name = given[0].strip() if given else ""
    if len(given) > 4 or not name:
        raise InvalidRequest(f"{tag} cannot be understood.", "Write <lora:name:weight>.")
    text_encoder = _weight(tag, named.get("te", given[1] if len(given) > 1 else "1"))
    denoiser = _weight(tag, named.get("unet", given[2] if len(given) > 2 else str(text_encoder)))
    rank = named.get("dyn", given[3] if len(given) > 3 else "")
    return Call(
        name, text_encoder, denoiser, _whole(tag, rank, 1) if rank else None,
        block_weights(named["lbw"]) if "lbw" in named else {},
        _whole(tag, named.get("start", "0"), 0), _whole(tag, named["stop"], 0) if "stop" in named else None,
    )


def _weight(tag: Tag, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InvalidRequest(f"{tag}: {text!r:.40} is no number.") from None
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise InvalidRequest(f"{tag}: the weight {text:.40} is out of range.", f"Use {-LARGEST:g} to {LARGEST:g}.")
    return value


def _whole(tag: Tag, text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise InvalidRequest(f"{tag}: {text!r:.40} is no whole number.") from None
    if value < least:
        raise InvalidRequest(f"{tag}: {value} is less than {least}.")
    return value
