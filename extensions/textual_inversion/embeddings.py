"""Embedding files: which there are, what they hold, and their vectors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.plugin import DarkroomError, InvalidModel, Stamp, Variant, model_files, read_outline, read_tensors

from .pictures import read_picture

if TYPE_CHECKING:
    import torch

FILES = (".pt", ".bin", ".safetensors")
PICTURES = (".png", ".webp", ".jxl", ".avif")
# What a file calls the vectors of SDXL's encoders, and which component each is of.
NAMED = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
MAX_VECTORS = 1000
SHOWN_HASH = 12


@dataclass(frozen=True)
class Embedding:
    """What a file holds: ``widths`` by part (``clip_l``, ``clip_g``, or an empty name for vectors of one encoder).

    ``error`` says why it cannot be used.
    """

    stamp: Stamp
    names: tuple[str, ...]
    widths: Mapping[str, int] = field(default_factory=dict)
    vectors: int = 0
    step: int | None = None
    checkpoint: str | None = None
    checkpoint_name: str | None = None
    error: str = ""

    @property
    def file(self) -> str:
        """The file's name."""
        return self.stamp.path.name

    def parts(self, variant: Variant) -> dict[str, str] | None:
        """Return which part each text encoder of a checkpoint takes; None where it does not fit."""
        encoders = {name: config.get("hidden_size") for name, config in variant.components.items()
                    if name.startswith("text_encoder")}
        taken = {component: part for component in encoders for part in _candidates(component, encoders)
                 if part in self.widths and self.widths[part] == encoders[component]}
        return taken if taken and taken.keys() == encoders.keys() else None


def _candidates(component: str, encoders: Mapping[str, Any]) -> tuple[str, ...]:
    named = tuple(part for part, owner in NAMED.items() if owner == component)
    return ("", *named) if len(encoders) == 1 else named


def found(folders: Iterable[Path]) -> tuple[Embedding, ...]:
    """Return the embeddings in ``folders`` and below, by path; pictures beside a file of their name are previews."""
    stamps = model_files(folders, (*FILES, *PICTURES))
    files = {stamp.path.with_suffix("") for stamp in stamps if stamp.path.suffix.lower() in FILES}
    return tuple(
        describe(stamp) for stamp in stamps
        if stamp.path.suffix.lower() in FILES or not _is_preview(stamp.path, files)
    )


def _is_preview(path: Path, files: set[Path]) -> bool:
    return path.stem.lower().endswith(".preview") or path.with_suffix("") in files


@functools.lru_cache(maxsize=65_536)
def describe(stamp: Stamp) -> Embedding:
    """Return what a file holds, without its vectors where that is possible."""
    stem = stamp.path.stem
    try:
        data = read_picture(stamp.path) if _is_picture(stamp) else read_outline(stamp.path)
        if data is None:
            return Embedding(stamp, (stem,), error=f"The picture {stamp.path.name} holds no embedding.")
        parts = vectors_of(data, stamp.path.name)
    except DarkroomError as error:
        return Embedding(stamp, (stem,), error=error.message)
    shapes = {name: (1, *value.shape)[-2:] for name, value in parts.items()}
    told = data if isinstance(data, dict) else {}
    stored = (told["name"],) if _is_picture(stamp) and isinstance(told.get("name"), str) and told["name"] else ()
    return Embedding(
        stamp, tuple(dict.fromkeys((*stored, stem))), {name: shape[1] for name, shape in shapes.items()},
        next(iter(shapes.values()))[0], _kept(told.get("step"), int), _kept(told.get("sd_checkpoint"), str),
        _kept(told.get("sd_checkpoint_name"), str),
    )


def _kept(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def _is_picture(stamp: Stamp) -> bool:
    return stamp.path.suffix.lower() in PICTURES


def vectors_of(data: Any, file: str) -> dict[str, Any]:
    """Return what of ``data`` has a shape, by part; raises ``InvalidModel`` for what is no embedding.

    Files of A1111 have one entry in ``string_to_param``, those of SDXL ``clip_l`` and ``clip_g``, others one tensor.
    """
    if not isinstance(data, Mapping):
        raise InvalidModel(f"{file} holds no embedding.")
    inner = data.get("string_to_param", data)
    state = getattr(inner, "state", None)
    inner = state.get("_parameters", {}) if isinstance(state, Mapping) else inner
    tensors = {name: value for name, value in inner.items() if hasattr(value, "shape")} \
        if isinstance(inner, Mapping) else {}
    parts = {name: value for name, value in tensors.items() if name in NAMED}
    if not parts and len(tensors) != 1:
        raise InvalidModel(f"{file} holds {len(tensors)} tensors where an embedding has one.",
                           "It may be another kind of model.")
    parts = parts or {"": next(iter(tensors.values()))}
    if any(len(value.shape) not in (1, 2) or not 1 <= (1, *value.shape)[-2] <= MAX_VECTORS
           for value in parts.values()):
        raise InvalidModel(f"The vectors in {file} are not a table.", "It may be another kind of model.")
    return parts


@functools.lru_cache(maxsize=64)
def load(stamp: Stamp) -> dict[str, torch.Tensor]:
    """Return a file's vectors, float32 [tokens, width] by part; raises ``InvalidModel`` for NaN or infinity."""
    import torch

    data = read_picture(stamp.path) if _is_picture(stamp) else read_tensors(stamp.path)
    parts = {name: torch.as_tensor(value).detach().float() for name, value in
             vectors_of(data, stamp.path.name).items()}
    if not all(bool(value.isfinite().all()) for value in parts.values()):
        raise InvalidModel(f"The embedding {stamp.path.name} holds NaN or infinity.", "Download it again.")
    return {name: value.reshape(-1, value.shape[-1]) for name, value in parts.items()}


@functools.lru_cache(maxsize=4096)
def short_hash(stamp: Stamp) -> str:
    """Return the first digits of a file's sha256."""
    return hashlib.sha256(stamp.path.read_bytes()).hexdigest()[:SHOWN_HASH]
