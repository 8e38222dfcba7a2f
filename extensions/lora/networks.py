"""Network files: which there are, by what name, and what each changes about a checkpoint; read once, then kept."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from modules.plugin import DarkroomError, ModelRef, Stamp, data_sha256, model_files, read_metadata, weight_places
from modules.plugin.adapters import Changes, Network, fit, read_network

SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")
SHOWN_HASH = 12


def found(folders: Iterable[Path]) -> list[Stamp]:
    """Return the network files in ``folders`` and below."""
    return model_files(folders, SUFFIXES)


@functools.lru_cache(maxsize=65_536)
def metadata(stamp: Stamp) -> Mapping[str, str]:
    """Return a file's metadata, nothing where it has none or is damaged."""
    try:
        return read_metadata(stamp.path)
    except DarkroomError:
        return {}


def alias(stamp: Stamp) -> str:
    """Return the name that the file was trained under, its own where it does not say."""
    return metadata(stamp).get("ss_output_name", "") or stamp.path.stem


@functools.lru_cache(maxsize=4096)
def short_hash(stamp: Stamp) -> str:
    """Return what infotexts show: the first digits of the sha256 of the tensors."""
    return (metadata(stamp).get("sshs_model_hash") or data_sha256(stamp.path))[:SHOWN_HASH]


@functools.lru_cache(maxsize=32)
def load(stamp: Stamp) -> Network:
    """Return what a file holds; raises ``InvalidModel`` for what is no network, or holds NaN or infinity."""
    return read_network(stamp.path)


def changes(stamp: Stamp, model: ModelRef, rank: int | None = None) -> Changes:
    """Return what the network of ``stamp`` changes about ``model``; reads no tensor of the model."""
    return _changes(stamp, model, rank, Path(model.checkpoint).stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _changes(stamp: Stamp, model: ModelRef, rank: int | None, model_mtime: int) -> Changes:
    return fit(load(stamp), weight_places(model), f"{stamp.path}@{stamp.mtime}", rank)
