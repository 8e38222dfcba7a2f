"""Arguments of the commands that work on model files: one for each field of what they ask for."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from modules.core.lora import LoraExtraction, LoraMerge, check_extraction, check_merge
from modules.core.merge import DTYPES, EMA, FORMATS, METHODS, Recipe, check_recipe

MERGE, MERGE_LORAS, EXTRACT_LORA = "merge", "merge-loras", "extract-lora"
Work = Recipe | LoraMerge | LoraExtraction
WORKS: Mapping[str, type] = MappingProxyType({
    MERGE: Recipe, MERGE_LORAS: LoraMerge, EXTRACT_LORA: LoraExtraction})
SUMMARY = {
    MERGE: "Merge checkpoints, convert one, or add LoRAs to it.",
    MERGE_LORAS: "Merge LoRAs into one.",
    EXTRACT_LORA: "Extract the difference of two checkpoints as a LoRA.",
}
# A1111 has a flag --config.
_FLAGS = {"config": "--copy-config"}
_HELP = {
    "model_a": "the first checkpoint, by any of its names", "model_b": "the second", "model_c": "the third",
    "method": f"{', '.join(METHODS)}", "alpha": "the method's first number", "beta": "its second",
    "block_alpha": "weights by block, or a preset", "block_beta": "the same of beta",
    "rules": "blocks:elements:ratio, separated by ;", "seed": "of DARE", "name": "of the file that is written",
    "format": ", ".join(FORMATS), "ema": f"averaged weights: {', '.join(EMA)}", "vae": "a VAE to bake in",
    "loras": "tags as in a prompt: '<lora:name:0.8>'", "discard": "regular expression of tensors to leave out",
    "config": "whose yaml is copied: any, b, c, none", "save_metadata": "write metadata",
    "add_recipe": "the recipe, too",
    "copy_metadata": "what the models' metadata say, too", "metadata_json": "more, as a JSON object",
    "model": "a checkpoint that they are for; default: what the settings say", "energy": "share that is enough",
    "rank": "the most ranks of a layer; 0 merges exactly", "conv_rank": "those of convolutions larger than 1x1",
    "clamp": "share of values that are not cut off", "text_encoders": "text encoders, too",
    "exact": "biases, norms and embeddings, too", "dtype": f"{', '.join(DTYPES[1:4])}",
}


def add_work(parser: argparse.ArgumentParser, command: str) -> None:
    """Add an argument for each field of what ``command`` asks for."""
    group = parser.add_argument_group("work")
    for item in dataclasses.fields(WORKS[command]):
        flag, kind = _FLAGS.get(item.name) or f"--{item.name.replace('_', '-')}", type(item.default)
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default, dest=item.name,
                               help=_HELP[item.name])
        else:
            group.add_argument(flag, type=kind, default=item.default, dest=item.name,
                               metavar={int: "N", float: "X", str: "TEXT"}[kind], help=_HELP[item.name])


def work_from(command: str, values: argparse.Namespace) -> Work:
    """Return what the arguments of ``command`` ask for; raises ``InvalidRequest`` naming what is wrong."""
    kind = WORKS[command]
    work: Any = kind(**{item.name: getattr(values, item.name) for item in dataclasses.fields(kind)})
    checks: Mapping[type, Any] = {Recipe: check_recipe, LoraMerge: check_merge, LoraExtraction: check_extraction}
    checked: Work = checks[kind](work)
    return checked
