"""LoRAs merged with each other: module by module, exactly by joining their ranks, or to a rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modules.adapters.files import read_calls
from modules.adapters.fitting import Change
from modules.adapters.formulas import factors
from modules.adapters.reading import BUNDLED
from modules.core.errors import InvalidModel
from modules.core.lora import EXACT, SUFFIX, LoraMerge, check_merge, usual_merge_name
from modules.core.merge import DROP_EMA, check_name
from modules.core.merge_metadata import Source
from modules.core.result import Outcome, Watch
from modules.families.places import Place
from modules.library.files import Library
from modules.merging import lora_file, low_rank
from modules.merging.edits import Called, called, warnings
from modules.merging.lora_file import Tensors
from modules.merging.models import Checkpoint, open_checkpoint
from modules.merging.parameters import parameters
from modules.merging.writer import check_new


@dataclass(frozen=True)
class Share:
    """What one network changes about a module, ``scale`` times."""

    scale: float
    change: Change


@dataclass(frozen=True)
class Module:
    """All that changes the ``weight`` or ``bias`` (``kind``) of a module."""

    place: Place
    kind: str
    shares: tuple[Share, ...]

    def pairs(self) -> list[tuple[float, Tensor, Tensor]]:
        """Return the changes as products of two matrices, each so many times; nothing where one is no LoRA."""
        found = [(share.scale, factors({name: part.double() for name, part in share.change.parts.items()},
                                       share.change.rank)) for share in self.shares]
        return [(scale, *pair) for scale, pair in found if pair] if all(pair for _, pair in found) else []


def perform(work: LoraMerge, library: Library, watch: Watch) -> Outcome:
    """Merge the LoRAs of ``work`` into a new one in the first folder of LoRAs.

    Raises ``InvalidRequest``, ``NotFound``, ``InvalidModel``, ``DiskFull``; whatever is raised leaves nothing behind.
    """
    calls = read_calls(check_merge(work).loras)
    stem = check_name(work.name or usual_merge_name([call.name for call in calls]))
    target = library.folders.lora[0] / f"{stem}{SUFFIX}"
    check_new(target)
    file = library.find_checkpoint(work.model)
    watch.batch(0, 1)
    with ExitStack() as stack, torch.inference_mode():
        model = open_checkpoint(file.path, file.name, DROP_EMA, stack)
        networks = called(work.loras, library, model)
        tensors = merged(networks, model, work, watch)
        sources = [Source(one.file.name, library.hashes.addnet(Path(one.file.path), watch.check), {})
                   for one in networks]
        lora_file.write(target, tensors, lora_file.metadata(work, model, tensors, stem, sources))
    return Outcome(True, warnings(networks), {
        "name": target.name, "size": target.stat().st_size, "tensors": len(tensors),
        "sha256": library.hashes.sha256(target, watch.check)})


def merged(networks: Sequence[Called], model: Checkpoint, work: LoraMerge, watch: Watch) -> Tensors:
    """Return the tensors of one network that changes what ``networks`` change together, at their weights."""
    names, found, shares = lora_file.names(model), dict[str, Tensor](), _shares(networks)
    stored = {(one.place, one.kind): one for one in parameters(model)}

    def original(place: Place, kind: str) -> Tensor:
        one = stored[place, kind]
        return one.of(model.tensors[one.tensor].whole()).double()

    for number, (place, several) in enumerate(shares.items()):
        watch.check()
        for kind in ("weight", "bias"):
            changing = [share for share in several if kind in share.change.deltas()]
            if changing:
                found |= _changed(names[place], Module(place, kind, tuple(changing)), original, work.rank)
        watch.step(number + 1, len(shares))
    if not found:
        raise InvalidModel("Nothing remains of the LoRAs at these weights.", "Choose weights other than 0.")
    return lora_file.narrowed(found, work.dtype) | _words(networks)


def _shares(networks: Sequence[Called]) -> dict[Place, list[Share]]:
    found: dict[Place, list[Share]] = {}
    for network in networks:
        for change in network.changes.fitting:
            if scale := network.call.weight(change.place.component, change.place.block):
                found.setdefault(change.place, []).append(Share(scale, change))
    return found


def _changed(name: str, module: Module, original: Callable[[Place, str], Tensor], rank: int) -> Tensors:
    """Return the tensors for the sum of a module's changes: a LoRA's where they are LoRAs, or where a rank is given."""
    shape = module.place.weight or ()
    is_matrix = module.kind == "weight" and len(shape) > 1
    most = min(shape[0], math.prod(shape[1:])) if is_matrix else 0
    if is_matrix and (pairs := module.pairs()):
        up, down = low_rank.joined(pairs)
        wanted = min(rank or most, most)
        if wanted < len(down):
            up, down = low_rank.factors(low_rank.of_product(up, down, wanted))
        return lora_file.low_rank(name, module.place, up, down)
    before = original(module.place, module.kind)
    total = sum((share.change.deltas()[module.kind](before) * share.scale for share in module.shares),
                torch.zeros_like(before))
    if not is_matrix or rank == EXACT:
        return lora_file.difference(name, module.place, module.kind, total)
    found = low_rank.spectrum(total.flatten(1).float(), min(rank, most))
    return lora_file.low_rank(name, module.place, *low_rank.factors(found))


def _words(networks: Sequence[Called]) -> Tensors:
    """Return the embeddings that the networks bring along, under the names that A1111 reads."""
    return {f"{BUNDLED}{word}.{part or 'string_to_param.*'}": vectors
            for one in reversed(networks) for word, parts in one.network.words.items()
            for part, vectors in parts.items()}
