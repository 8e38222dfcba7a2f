"""How far two checkpoints are apart: which are compared, and what comes of it, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modules.core.errors import InvalidRequest
from modules.core.merge_blocks import BASE, block_of, blocks, component_of

KIND = "difference"
# Components that are blocks of their own here, by what they are called in lists of blocks.
NAMED: Mapping[str, str] = MappingProxyType({"text_encoder": "TE", "text_encoder_2": "TE2", "vae": "VAE"})


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints by any of their names; the difference is that of B from A."""

    model_a: str
    model_b: str


@dataclass(frozen=True)
class BlockDifference:
    """A block: ``difference`` is |A - B| / |A| (Frobenius norms of all its tensors), None where A is all zeros.

    ``equal`` of its ``tensors`` are the same in both, number by number.
    """

    block: str
    difference: float | None
    tensors: int
    equal: int
    elements: int


def check(asked: Comparison) -> Comparison:
    """Return ``asked`` unchanged, or raise ``InvalidRequest`` naming the model that is missing."""
    for letter, name in (("A", asked.model_a), ("B", asked.model_b)):
        if not name:
            raise InvalidRequest(f"Model {letter} is not chosen.", "Two checkpoints are compared.")
    return asked


def place_of(name: str, side: int) -> str:
    """Return the block of a single file's tensor as ``order`` lists it; empty for what is of no component."""
    component = component_of(name)
    return NAMED.get(component, block_of(name, side)) if component else ""


def order(side: int) -> tuple[str, ...]:
    """Return all blocks from the prompt to the picture: TE, TE2, BASE, IN00, …, M00, OUT00, …, VAE."""
    return ("TE", "TE2", BASE, *blocks(side)[1:], "VAE")
