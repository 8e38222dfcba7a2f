"""A LoRA as sd-scripts writes it: names of tensors, what the metadata say, the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from modules.core import codec
from modules.core.errors import InvalidModel
from modules.core.lora import LoraExtraction, LoraMerge
from modules.core.merge_metadata import Source
from modules.families.places import Place, trained_names
from modules.library.tensors import TensorInfo
from modules.merging.models import Checkpoint
from modules.merging.tensors import NAMES
from modules.merging.writer import HASH, LORA_HASH, check_space, replacing, write_safetensors
from modules.runtime.weights import is_finite

RECIPE, SOURCES = "darkroom_lora_recipe", "darkroom_lora_sources"
DYNAMIC = "Dynamic"
PRECISIONS: Mapping[str, torch.dtype] = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
Tensors = dict[str, Tensor]


def names(model: Checkpoint) -> dict[Place, str]:
    """Return what sd-scripts calls each module of ``model``."""
    return trained_names(model.header, model.variant, model.latent_diffusion.original_lora_names)


def low_rank(name: str, place: Place, up: Tensor, down: Tensor) -> Tensors:
    """Return the tensors of one module's LoRA, ``up`` [out, r] and ``down`` [r, n]; its alpha is its rank."""
    assert place.weight is not None
    kernel = place.weight[2:]
    ones = [1 for _ in kernel]
    return {f"{name}.lora_up.weight": up.reshape(*up.shape, *ones),
            f"{name}.lora_down.weight": down.reshape(len(down), place.weight[1], *kernel),
            f"{name}.alpha": torch.tensor(float(len(down)))}


def difference(name: str, place: Place, kind: str, change: Tensor) -> Tensors:
    """Return the full difference of one module's ``weight`` or ``bias`` (``kind``), under the names of LyCORIS."""
    assert place.weight is not None
    short = ("w_norm", "b_norm") if len(place.weight) == 1 else ("diff", "diff_b")
    return {f"{name}.{short[0 if kind == 'weight' else 1]}": change}


def narrowed(tensors: Tensors, dtype: str) -> Tensors:
    """Return ``tensors`` in the type to be written. Raises ``InvalidModel`` where one does not fit into it."""
    found = {name: tensor.to(PRECISIONS[dtype]).contiguous() for name, tensor in tensors.items()}
    for name, tensor in found.items():
        if not is_finite(tensor):
            raise InvalidModel(f"{name} holds values too large for {dtype}.", "Save it in bfloat16 or float32.")
    return found


def metadata(work: LoraMerge | LoraExtraction, model: Checkpoint, tensors: Tensors, name: str,
             sources: Sequence[Source]) -> dict[str, str]:
    """Return what sd-scripts says of a network and, beside it, the recipe and the hashes of its sources."""
    downs = {key: len(tensor) for key, tensor in tensors.items() if key.endswith(".lora_down.weight")}
    ranks = {rank for key, rank in downs.items() if not _is_convolution(tensors[key])}
    convolutions = {rank for key, rank in downs.items() if _is_convolution(tensors[key])}
    plain = len(downs) * 3 == len(tensors) and not convolutions
    found = {
        "ss_network_module": "networks.lora" if plain else "lycoris.kohya", "ss_network_dim": _one(ranks),
        "ss_network_alpha": _one(ranks), "ss_base_model_version": model.latent_diffusion.lora_base,
        "ss_v2": str(model.latent_diffusion.lora_base == "sd_v2"), "ss_output_name": name, HASH: "", LORA_HASH: "",
        RECIPE: json.dumps(codec.encode(work)),
        SOURCES: json.dumps({source.name: source.sha256 for source in sources}),
    }
    if convolutions:
        found["ss_network_args"] = json.dumps({"conv_dim": _one(convolutions), "conv_alpha": _one(convolutions)})
    return found


def write(target: Path, tensors: Tensors, told: Mapping[str, str]) -> None:
    """Write a network to ``target``, whole or not at all. Raises ``InvalidRequest``, ``DiskFull``."""
    infos = [(key, TensorInfo(NAMES[tensor.dtype], tuple(tensor.shape))) for key, tensor in sorted(tensors.items())]
    target.parent.mkdir(parents=True, exist_ok=True)
    check_space(target.parent, sum(info.bytes for _, info in infos))
    with replacing(target) as partial:
        write_safetensors(partial, infos, told, (tensors[key] for key, _ in infos))


def _one(ranks: set[int]) -> str:
    return str(next(iter(ranks))) if len(ranks) == 1 else DYNAMIC


def _is_convolution(down: Tensor) -> bool:
    return down.ndim > 2 and down[0, 0].numel() > 1
