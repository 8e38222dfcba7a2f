"""The relative difference of two checkpoints, block by block; streamed from their files, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import torch

from modules.core.difference import BlockDifference, Comparison, order, place_of
from modules.core.errors import InvalidModel, examples
from modules.core.merge import DROP_EMA
from modules.core.merge_blocks import side_of
from modules.core.result import Outcome, Watch
from modules.library.files import Library
from modules.merging.models import Checkpoint, open_checkpoint
from modules.merging.plan import check_families
from modules.merging.progress import advancing
from modules.merging.tensors import Stored

PIECE = 1 << 18


@dataclass
class Sums:
    """What has been added up of a block: squares of A - B and of A, tensors, equal ones, and numbers."""

    apart: float = 0.0
    size: float = 0.0
    tensors: int = 0
    equal: int = 0
    elements: int = 0


def perform(asked: Comparison, library: Library, watch: Watch) -> Outcome:
    """Compare the checkpoints that ``asked`` names.

    Raises ``NotFound``, ``InvalidModel`` for models that cannot be compared or hold NaN, ``Interrupted``.
    """
    files = [library.find_checkpoint(name) for name in (asked.model_a, asked.model_b)]
    watch.batch(0, 1)
    with ExitStack() as stack, torch.inference_mode():
        a, b = (open_checkpoint(file.path, file.name, DROP_EMA, stack) for file in files)
        blocks, warnings = compare(a, b, watch)
    return Outcome(True, warnings, {"model_a": files[0].name, "model_b": files[1].name,
                                    "blocks": [asdict(block) for block in blocks]})


def compare(a: Checkpoint, b: Checkpoint, watch: Watch) -> tuple[list[BlockDifference], tuple[str, ...]]:
    """Return the blocks that both have, in order, and what is to be said of tensors that could not be compared."""
    check_families((a, b))
    side = side_of(a.tensors)
    pairs: list[tuple[str, Stored, Stored]] = []
    alone: list[str] = []
    reshaped: list[str] = []
    for name, stored in a.tensors.items():
        if not (place := place_of(name, side)) or not stored.is_float:
            continue
        other = b.find(name)
        if other is None:
            alone.append(name)
        elif other.info.shape != stored.info.shape:
            reshaped.append(name)
        else:
            pairs.append((place, stored, other))
    sums: dict[str, Sums] = {}
    advance = advancing(watch, sum(one.info.bytes + other.info.bytes for _, one, other in pairs))
    for place, one, other in pairs:
        _add(sums.setdefault(place, Sums()), one, other, advance)
    found = [_block(place, sums[place]) for place in order(side) if place in sums]
    return found, tuple(_said(names, why) for names, why in (
        (alone, f"are not in {b.name}"), (reshaped, "have other shapes")) if names)


def _add(sums: Sums, one: Stored, other: Stored, advance: Callable[[int], None]) -> None:
    apart = size = 0.0
    for start in range(0, one.info.elements, PIECE):
        stop = min(one.info.elements, start + PIECE)
        first, second = one.read(start, stop), other.read(start, stop)
        advance(first.nbytes + second.nbytes)
        x = first.double()
        difference = x - second.double()
        apart += float(difference @ difference)
        size += float(x @ x)
    sums.apart, sums.size = sums.apart + apart, sums.size + size
    sums.tensors, sums.elements = sums.tensors + 1, sums.elements + one.info.elements
    sums.equal += apart == 0.0


def _block(place: str, sums: Sums) -> BlockDifference:
    if not math.isfinite(sums.apart):
        raise InvalidModel(f"{place} holds NaN or infinity in one of the models.", "The Inspector says which tensors.")
    relative = math.sqrt(sums.apart / sums.size) if sums.size else None if sums.apart else 0.0
    return BlockDifference(place, relative, sums.tensors, sums.equal, sums.elements)


def _said(names: list[str], why: str) -> str:
    return f"{len(names)} tensors {why} and were left out: {examples(names)}."
