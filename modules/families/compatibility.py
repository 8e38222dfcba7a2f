"""Which family a network was made for, from its header and from what is said of it; empty where that is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from modules.core.errors import InvalidModel
from modules.families import detect
from modules.library.files import CHECKPOINT, EMBEDDING, LORA
from modules.library.headers import Header
from modules.library.tensors import TensorInfo

# Widths of the contexts of published models, which are those of their embeddings too.
WIDTHS: Mapping[int, str] = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
# What trainers, the ModelSpec and Civitai call the models of each family; the first that fits.
NAMES: tuple[tuple[str, re.Pattern[str]], ...] = tuple((family, re.compile(names, re.IGNORECASE)) for family, names in (
    ("sdxl", r"sd[ _-]?xl|stable-diffusion-xl|\bpony\b(?! v7)|illustrious|noobai"),
    ("sd3", r"\bsd[ _-]?3|stable-diffusion-v?3"),
    ("flux", r"flux"),
    ("sd2", r"\bsd[ _-]?v?2|stable-diffusion-v2"),
    ("sd15", r"\bsd[ _-]?v?1|stable-diffusion-v1"),
    ("other", r"\b(wan|hunyuan|pixart|cogvideo|ltx|qwen|lumina|kolors|aura|hidream|chroma|mochi|svd|cascade|pony v7)"),
))
# Names of tensors that only LoRAs of one family have.
SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("flux", ("double_blocks", "single_blocks", "single_transformer_blocks")),
    ("sd3", ("joint_blocks",)),
    ("sdxl", ("lora_te2_", "text_encoder_2.", "add_embedding")),
)
# Tensors of LoRA, LoHa and full differences, whose second side is the width of what the module is given.
_TAKEN = r".*(?:down\.weight|lora_A\.weight|hada_w1_b|\.diff)$"
_CONTEXT = re.compile(rf"attn2[._](?:processor\.)?to_[kv]{_TAKEN}")
_TEXT = re.compile(rf"(?:lora_te|text_encoder)[._]text_model.*q_proj{_TAKEN}")
STATED = ("ss_base_model_version", "modelspec.architecture")


def family_of(kind: str, header: Header | None, chosen: str = "", said: Iterable[str] = ()) -> str:
    """Return the id of a network's family: what its user has ``chosen`` in words, what its tensors show, what its
    metadata state, or what others have ``said``.
    """
    stated = (header.metadata.get(key, "") for key in STATED) if header else ()
    candidates = (named(chosen), shown(kind, header) if header else "", *map(named, stated), *map(named, said))
    return next(filter(None, candidates), "")


def named(text: str) -> str:
    """Return the family that a model's name for people means."""
    return next((family for family, pattern in NAMES if pattern.search(text[:200])), "")


def shown(kind: str, header: Header) -> str:
    """Return the family that the names and shapes of a header show."""
    if kind == CHECKPOINT:
        try:
            return detect(header)[0].id
        except InvalidModel:
            return ""
    if kind == EMBEDDING:
        return _embedding(header.tensors)
    return _lora(header.tensors) if kind == LORA else ""


def _embedding(tensors: Mapping[str, TensorInfo]) -> str:
    if "clip_g" in tensors:
        return "sdxl"
    shapes = [info.shape for info in tensors.values()]
    return WIDTHS.get((0, *shapes[0])[-1], "") if len(shapes) == 1 else ""


def _lora(tensors: Mapping[str, TensorInfo]) -> str:
    for family, signs in SIGNS:
        if any(sign in name for name in tensors for sign in signs):
            return family
    for pattern in (_CONTEXT, _TEXT):
        widths = {info.shape[1] for name, info in tensors.items() if len(info.shape) > 1 and pattern.search(name)}
        if len(widths) == 1:
            return WIDTHS.get(widths.pop(), "")
    return ""
