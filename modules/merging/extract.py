"""A LoRA extracted as the difference of two checkpoints: its best approximation of a rank, layer by layer."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from modules.core.errors import InvalidModel
from modules.core.lora import SUFFIX, LoraExtraction, check_extraction, usual_extraction_name
from modules.core.merge import DROP_EMA, check_name
from modules.core.merge_metadata import Source
from modules.core.result import Outcome, Watch
from modules.library.files import Library
from modules.merging import lora_file, low_rank
from modules.merging.lora_file import Tensors
from modules.merging.models import Checkpoint, open_checkpoint
from modules.merging.parameters import Parameter, parameters
from modules.merging.plan import check_families
from modules.merging.progress import advancing
from modules.merging.writer import check_new


@dataclass
class Found:
    """What has been extracted: tensors, and of the squared differences all and what was kept of them.

    ``other`` counts parameters that differ and are of no layer that is extracted, ``unlike`` those of other shapes or
    missing in one of the models.
    """

    tensors: Tensors = field(default_factory=dict)
    total: float = 0.0
    kept: float = 0.0
    other: int = 0
    unlike: int = 0


def perform(work: LoraExtraction, library: Library, watch: Watch) -> Outcome:
    """Write the LoRA that ``work`` asks for into the first folder of LoRAs.

    Raises ``InvalidRequest``, ``NotFound``, ``InvalidModel``, ``DiskFull``; whatever is raised leaves nothing behind.
    """
    files = [library.find_checkpoint(name) for name in (check_extraction(work).model_a, work.model_b)]
    usual = usual_extraction_name(files[0].stem, files[1].stem, work.rank)
    stem = check_name(work.name or usual)
    target = library.folders.lora[0] / f"{stem}{SUFFIX}"
    check_new(target)
    watch.batch(0, 1)
    with ExitStack() as stack, torch.inference_mode():
        a, b = (open_checkpoint(file.path, file.name, DROP_EMA, stack) for file in files)
        check_families((a, b))
        found = extracted(work, a, b, watch)
        watch.phase("Hashing the models")
        sources = [Source(file.name, library.hashes.sha256(Path(file.path), watch.check), {}) for file in files]
        lora_file.write(target, found.tensors, lora_file.metadata(work, a, found.tensors, stem, sources))
    return Outcome(True, _warnings(found), {
        "name": target.name, "size": target.stat().st_size, "tensors": len(found.tensors),
        "kept": found.kept / found.total, "sha256": library.hashes.sha256(target, watch.check)})


def extracted(work: LoraExtraction, a: Checkpoint, b: Checkpoint, watch: Watch) -> Found:
    """Return the network that makes ``b`` of ``a``. Raises ``InvalidModel`` where they do not differ."""
    names, found = lora_file.names(a), Found()
    wanted = [one for one in parameters(a) if work.text_encoders or one.place.component == "unet"]
    advance = advancing(watch, sum(a.tensors[one.tensor].info.bytes for one in wanted))
    for one in wanted:
        change = _difference(one, a, b, found)
        if change is not None:
            size = float(change.double().square().sum())
            found.total += size
            layer = _layer(names[one.place], one, change, size, work, found)
            found.tensors |= lora_file.narrowed(layer, work.dtype)
        advance(a.tensors[one.tensor].info.bytes)
    if not found.tensors:
        raise InvalidModel("The models do not differ in what a LoRA can hold.", "Choose others, or a rank.")
    return found


def _difference(one: Parameter, a: Checkpoint, b: Checkpoint, found: Found) -> Tensor | None:
    """Return B - A of a parameter in float32, None where they are the same or cannot be compared."""
    theirs, ours = b.find(one.tensor), a.tensors[one.tensor]
    if theirs is None or theirs.info.shape != ours.info.shape:
        found.unlike += 1
        return None
    change = one.of(theirs.whole()).float() - one.of(ours.whole()).float()
    if not bool(change.isfinite().all()):
        raise InvalidModel(f"{one.tensor} holds NaN or infinity.", "One of the models is damaged; download it again.")
    return change if bool(change.any()) else None


def _layer(name: str, one: Parameter, change: Tensor, size: float, work: LoraExtraction, found: Found) -> Tensors:
    """Return the tensors for one parameter, nothing where it is of no kind that is asked for.

    ``size`` is the sum of the squares of its ``change``. What a clamp takes away still counts as kept.
    """
    rank = rank_of(one, work)
    if rank:
        matrix = change.flatten(1)
        parts = low_rank.spectrum(matrix, min(rank, *matrix.shape))
        parts = parts.first(low_rank.rank_for(parts.values, size, work.energy))
        found.kept += float(parts.values.double().square().sum())
        return lora_file.low_rank(name, one.place, *low_rank.factors(parts, work.clamp))
    if rank is None and work.exact:
        found.kept += size
        return lora_file.difference(name, one.place, one.kind, change)
    found.other += rank is None
    return {}


def rank_of(one: Parameter, work: LoraExtraction) -> int | None:
    """Return the most ranks that a parameter gets, None for what is no linear layer and no convolution."""
    shape = one.place.weight or ()
    if one.kind != "weight" or len(shape) < 2 or "embedding" in one.place.path.rpartition(".")[2]:
        return None
    return work.conv_rank if math.prod(shape[2:]) > 1 else work.rank


def _warnings(found: Found) -> tuple[str, ...]:
    lost = (f"{found.other} biases, norms and embeddings differ and were left out; "
            "extract them too for a closer result.")
    unlike = f"{found.unlike} parameters are not in both models in one shape and were left out."
    return tuple(text for count, text in ((found.other, lost), (found.unlike, unlike)) if count)
