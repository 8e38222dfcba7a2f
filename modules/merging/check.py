"""A model file read to its end: its hashes, and whether all its numbers are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modules.core.inspection import Check
from modules.core.result import Outcome, Watch
from modules.families.inspection import part_of
from modules.library.files import Library, ModelFile
from modules.library.headers import Header, read_header
from modules.merging.progress import advancing
from modules.merging.tensors import Stored, open_stored

PIECE = 1 << 20
# How many names of bad tensors are told.
SHOWN = 50
ALPHA = ".alpha"


@dataclass
class Findings:
    """What is seen of the values so far: names of tensors with NaN, with infinity, of zeros alone; the largest value.

    ``alphas`` counts a network's alphas by part and value.
    """

    nan: list[str]
    infinite: list[str]
    zero: list[str]
    alphas: dict[str, dict[float, int]]
    largest: float = 0.0


def perform(asked: Check, library: Library, watch: Watch) -> Outcome:
    """Read the file that ``asked`` names, for its hashes, its values or both.

    Raises ``InvalidModel`` for a damaged file, ``NotFound``, and ``Interrupted`` where it is stopped.
    """
    file = library.find(asked.kind, asked.name)
    watch.batch(0, 1)
    hashes = _hashed(file, library, watch) if asked.hashes else {}
    values = _values(asked.kind, read_header(file.path), watch) if asked.values else {}
    return Outcome(True, (), {"kind": asked.kind, "name": file.name, "hashes": hashes, "values": values})


def _hashed(file: ModelFile, library: Library, watch: Watch) -> dict[str, str]:
    watch.phase("Hashing the file")
    path = Path(file.path)
    return {"sha256": library.hashes.sha256(path, watch.check), "addnet": library.hashes.addnet(path, watch.check)}


def _values(kind: str, header: Header, watch: Watch) -> dict[str, Any]:
    watch.phase("Reading the values")
    found = Findings([], [], [], {})
    with ExitStack() as stack, torch.inference_mode():
        tensors = dict(_opened(header, stack))
        advance = advancing(watch, sum(stored.info.bytes for stored in tensors.values()))
        for name, stored in tensors.items():
            if stored.is_float:
                _look(name, stored, found)
                if name.endswith(ALPHA) and stored.info.elements == 1:
                    counts = found.alphas.setdefault(part_of(kind, header, name), {})
                    alpha = float(stored.whole())
                    counts[alpha] = counts.get(alpha, 0) + 1
            advance(stored.info.bytes)
    bad: Mapping[str, list[str]] = {"nan": found.nan, "infinite": found.infinite, "zero": found.zero}
    return {"tensors": len(tensors), "largest": found.largest, **{
        name: {"count": len(names), "names": names[:SHOWN]} for name, names in bad.items()},
        "alphas": {part: {f"{alpha:g}": count for alpha, count in sorted(counts.items())}
                   for part, counts in found.alphas.items()}}


def _opened(header: Header, stack: ExitStack) -> Iterator[tuple[str, Stored]]:
    if not header.components:
        yield from open_stored([header.path], stack).items()
    for component, part in header.components.items():
        for name, stored in open_stored(part.files, stack).items():
            yield f"{component}.{name}", stored


def _look(name: str, stored: Stored, found: Findings) -> None:
    has_nan = has_infinity = False
    largest = 0.0
    for start in range(0, stored.info.elements, PIECE):
        values = stored.read(start, min(stored.info.elements, start + PIECE)).to(_wide(stored))
        sizes = values.abs()
        finite = sizes.isfinite()
        if not bool(finite.all()):
            has_nan = has_nan or bool(sizes.isnan().any())
            has_infinity = has_infinity or bool(sizes.isinf().any())
            sizes = torch.where(finite, sizes, 0.0)
        largest = max(largest, float(sizes.max()))
    if has_nan:
        found.nan.append(name)
    if has_infinity:
        found.infinite.append(name)
    if largest == 0.0 and stored.info.elements and not (has_nan or has_infinity):
        found.zero.append(name)
    found.largest = max(found.largest, largest)


def _wide(stored: Stored) -> torch.dtype:
    return torch.float64 if stored.info.dtype == "F64" else torch.float32
