"""LoRAs merged with each other, and a LoRA extracted from two checkpoints: what each asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modules.core.errors import InvalidRequest
from modules.core.merge import MAX_NAME, MAX_TEXT, check_name, hash_text

MERGE, EXTRACT = "merge_loras", "extract_lora"
PRECISIONS = ("float16", "bfloat16", "float32")
EXACT = 0
MAX_RANK = 4096
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class LoraMerge:
    """LoRAs to merge into one that changes what all of them do together.

    ``loras`` are tags as in a prompt. ``model`` is a checkpoint that they are for, whose modules they are put together
    by. ``rank`` 0 merges exactly: ranks add up, and what is no LoRA is written as a full difference; another one is the
    most that the result has.
    """

    loras: str = ""
    model: str = ""
    rank: int = EXACT
    name: str = ""
    dtype: str = PRECISIONS[0]


@dataclass(frozen=True)
class LoraExtraction:
    """A LoRA to extract that makes of the checkpoint ``model_a`` what ``model_b`` is, as nearly as its rank allows.

    Linear layers get ``rank``, convolutions larger than 1x1 ``conv_rank``, 0 for none of them; fewer where these keep a
    share ``energy`` of a layer's squared difference. ``clamp`` is the share of the values of each matrix that is not
    cut off. ``exact`` also writes biases, norms and embeddings, which sd-scripts' LoRAs do not have.
    """

    model_a: str = ""
    model_b: str = ""
    rank: int = 64
    conv_rank: int = 0
    energy: float = 1.0
    clamp: float = 1.0
    text_encoders: bool = True
    exact: bool = False
    name: str = ""
    dtype: str = PRECISIONS[0]


def check_merge(work: LoraMerge) -> LoraMerge:
    """Return ``work`` unchanged, or raise ``InvalidRequest`` naming what is wrong; tags are read elsewhere."""
    _check(work)
    if len(work.loras) > MAX_TEXT:
        raise InvalidRequest("The text of LoRAs is too long.")
    if not work.loras.strip():
        raise InvalidRequest("No LoRAs are named.", "Write <lora:name:weight> for each.")
    return work


def check_extraction(work: LoraExtraction) -> LoraExtraction:
    """Return ``work`` unchanged, or raise ``InvalidRequest`` naming what is wrong."""
    _check(work)
    for letter, name in (("A", work.model_a), ("B", work.model_b)):
        if not name:
            raise InvalidRequest(f"Model {letter} is not chosen.", "A LoRA is the difference of two models.")
    if not 0 <= work.conv_rank <= MAX_RANK:
        raise InvalidRequest(f"conv_rank must be from 0 to {MAX_RANK}, not {work.conv_rank}.")
    if not (work.rank or work.conv_rank):
        raise InvalidRequest("rank and conv_rank are 0.", "Choose a rank.")
    for name in ("energy", "clamp"):
        if not 0.0 < getattr(work, name) <= 1.0:
            raise InvalidRequest(f"{name} must be above 0 and at most 1, not {getattr(work, name)}.")
    return work


def usual_merge_name(names: Sequence[str]) -> str:
    """Return the name of a merge of LoRAs with ``names`` that has none of its own; never that of one of them."""
    return _short(" + ".join(names) if len(names) > 1 else f"{names[0]}-merged", "merged")


def usual_extraction_name(a: str, b: str, rank: int) -> str:
    """Return the name of a LoRA extracted from models with the stems ``a`` and ``b`` that has none of its own."""
    return _short(f"{b} - {a} ({rank})", "extracted")


def _short(name: str, what: str) -> str:
    return name if len(name.encode()) <= MAX_NAME else f"{what} {hash_text(name):08x}"


def _check(work: LoraMerge | LoraExtraction) -> None:
    if work.dtype not in PRECISIONS:
        raise InvalidRequest(f"dtype: {work.dtype[:60]!r} is none of {', '.join(PRECISIONS)}.")
    if not 0 <= work.rank <= MAX_RANK:
        raise InvalidRequest(f"rank must be from 0 to {MAX_RANK}, not {work.rank}.")
    if work.name:
        check_name(work.name)
