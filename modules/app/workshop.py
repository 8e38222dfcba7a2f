"""What happens to work on model files before it is queued: names resolved, the name of the result found free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modules.app import recipes
from modules.app.admission import Desk, find_model
from modules.core import lora, merge
from modules.core.errors import InvalidRequest
from modules.core.lora import LoraExtraction, LoraMerge
from modules.core.merge import METHODS, Recipe, check_name, config_name, file_name
from modules.core.merge_metadata import given
from modules.library.name_patterns import check_pattern

Work = Recipe | LoraMerge | LoraExtraction


@dataclass(frozen=True)
class Admitted:
    """Work that can be queued: its ``kind`` of job, the name of the file that it makes, and how it does."""

    kind: str
    work: Work
    name: str
    summary: str


def admit(work: Work, desk: Desk) -> Admitted:
    """Return ``work`` with models under their proper names.

    Raises ``InvalidRequest``, also where the file that it makes exists, and ``NotFound`` for a model, VAE or LoRA.
    """
    return ADMIT[type(work)](work, desk)


def _merge(recipe: Recipe, desk: Desk) -> Admitted:
    admitted = desk.models.named(recipe)
    given(admitted.metadata_json)
    check_pattern(admitted.discard)
    name = file_name(admitted, admitted.name)
    _check_free((name, config_name(admitted, admitted.name)), desk.folders.checkpoints)
    return Admitted(merge.KIND, admitted, name, METHODS[admitted.method].label)


def _merge_loras(work: LoraMerge, desk: Desk) -> Admitted:
    names = recipes.called(lora.check_merge(work).loras, desk.library)
    model = find_model(work.model or desk.checkpoint, desk.library)
    stem = check_name(work.name or lora.usual_merge_name(names))
    name = f"{stem}{lora.SUFFIX}"
    _check_free((name,), desk.folders.lora)
    summary = f"{len(names)} LoRAs, {'exactly' if work.rank == lora.EXACT else f'rank {work.rank}'}"
    return Admitted(lora.MERGE, dataclasses.replace(work, model=model.name, name=stem), name, summary)


def _extract(work: LoraExtraction, desk: Desk) -> Admitted:
    a, b = (desk.library.find_checkpoint(name) for name in (lora.check_extraction(work).model_a, work.model_b))
    stem = check_name(work.name or lora.usual_extraction_name(a.stem, b.stem, work.rank))
    name = f"{stem}{lora.SUFFIX}"
    _check_free((name,), desk.folders.lora)
    admitted = dataclasses.replace(work, model_a=a.name, model_b=b.name, name=stem)
    return Admitted(lora.EXTRACT, admitted, name, f"LoRA of rank {work.rank}")


ADMIT: Mapping[type, Callable[[Any, Desk], Admitted]] = MappingProxyType({
    Recipe: _merge, LoraMerge: _merge_loras, LoraExtraction: _extract})


def _check_free(names: tuple[str, ...], folders: tuple[Path, ...]) -> None:
    for name in dict.fromkeys(names):
        if any((folder / name).exists() for folder in folders):
            raise InvalidRequest(f"There is already a {name}.", "Choose another name.")
