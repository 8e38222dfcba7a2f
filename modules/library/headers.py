"""What a model file holds, from its header alone: names, types, shapes, metadata and configurations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.core.errors import InvalidModel, NotFound
from modules.library.pickle_format import (
    Inert,
    inert_globals,
    read_legacy,
    read_legacy_object,
    read_zip,
    read_zip_object,
)
from modules.library.safetensors_format import looks_like_safetensors, read_safetensors
from modules.library.tensors import TensorInfo

__all__ = ["Component", "Header", "Inert", "TensorInfo", "inert_globals", "read_header", "read_metadata",
           "read_outline"]

SAFETENSORS, PICKLE, LEGACY_PICKLE, DIFFUSERS = "safetensors", "pickle", "legacy_pickle", "diffusers"
MODEL_INDEX = "model_index.json"

_MAX_CONFIG_BYTES = 8 * 1024 * 1024
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model|pytorch_model)(?P<before>\.\w+)?(-\d+-of-\d+)?(?P<after>\.\w+)?"
                      r"\.(safetensors|bin)(\.index(?P<index>\.\w+)?\.json)?")
_CONFIG_NAMES = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Component:
    """One subfolder of a diffusers folder: its class, its configuration and its weights.

    ``kind`` is the class of ``model_index.json``, such as ``UNet2DConditionModel``. ``files`` are the absolute paths
    of the files that hold ``tensors``, several where the weights are in shards, none for a scheduler.
    """

    kind: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """A model file or folder without its tensors.

    ``layout`` is ``safetensors``, ``pickle`` (a zip archive), ``legacy_pickle`` (torch before 1.6) or ``diffusers``
    (a folder). ``tensors`` maps names as they are in the file; in a folder ``component.name``. ``metadata`` is that
    of safetensors. ``components`` and ``index`` (``model_index.json``) are empty for files.
    """

    path: str
    layout: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, Component] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)


def read_header(path: str | Path) -> Header:
    """Return the header of a checkpoint, VAE, LoRA ... file or of a diffusers folder.

    The first bytes decide the format, never the suffix. Time and memory are bounded whatever the file claims.
    Raises ``NotFound`` when there is no such file, and ``InvalidModel`` saying what is wrong with it.
    """
    path = Path(path)
    with _explained(path):
        return _read_folder(path) if path.is_dir() else _read_file(path)


def read_outline(path: str | Path) -> Any:
    """Return what a file holds as plain data, each tensor as its ``TensorInfo``, without reading one.

    A pickle's object comes as it was saved, with all its numbers and texts; safetensors as names to ``TensorInfo``.
    Errors as ``read_header``.
    """
    path = Path(path)
    with _explained(path):
        header = _read_file(path)
        if header.layout == SAFETENSORS:
            return dict(header.tensors)
        return read_zip_object(path) if header.layout == PICKLE else read_legacy_object(path)


def read_metadata(header: Header) -> Mapping[str, str]:
    """Return the metadata of a file, or of a folder's denoiser, where merges write theirs."""
    unet = header.components.get("unet")
    return header.metadata if unet is None or not unet.files else _read_file(Path(unet.files[0])).metadata


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path.name} does not exist any more.", "Refresh the list of models.") from error
    except PermissionError as error:
        raise InvalidModel(f"{path.name} may not be read.", "Check the permissions of the file.") from error
    except InvalidModel as error:
        named = error.message if path.name in error.message else f"{path.name}: {error.message}"
        raise InvalidModel(named, error.hint) from error


def _read_file(path: Path) -> Header:
    with path.open("rb") as file:
        start = file.read(64)
    if start[:4] == b"PK\x03\x04":
        return Header(str(path), PICKLE, read_zip(path))
    if looks_like_safetensors(start):
        tensors, metadata = read_safetensors(path)
        return Header(str(path), SAFETENSORS, tensors, metadata)
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return Header(str(path), LEGACY_PICKLE, read_legacy(path))
    raise InvalidModel(f"{path.name} is no model file: {_impression(start)}.", "Download the file again.")


def _impression(start: bytes) -> str:
    text = start.lstrip().lower()
    if not start:
        return "it is empty"
    if not start.strip(b"\0"):
        return "it begins with zeros, as an unfinished download does"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, probably one that asks to log in"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, the model itself was not fetched"
    if start[:4] == b"GGUF":
        return "it is a GGUF file, which is not supported"
    return "it is neither safetensors nor a torch checkpoint"


def _read_folder(path: Path) -> Header:
    if not (path / MODEL_INDEX).is_file():
        raise InvalidModel(f"The folder {path.name} has no {MODEL_INDEX}.", "Choose a diffusers folder or a file.")
    index = _read_json(path / MODEL_INDEX)
    components = {
        name: _read_component(path / name, str(entry[1]))
        for name, entry in index.items()
        if _is_component(name, entry) and (path / name).is_dir()
    }
    tensors = {f"{name}.{key}": info for name, part in components.items() for key, info in part.tensors.items()}
    return Header(str(path), DIFFUSERS, tensors, components=components, index=index)


def _is_component(name: str, entry: object) -> bool:
    # A name becomes a path below; anything but a plain word could lead out of the folder.
    return (re.fullmatch(r"[A-Za-z]\w*", name) is not None
            and isinstance(entry, list) and len(entry) == 2 and entry[1] is not None)


def _read_component(folder: Path, kind: str) -> Component:
    config_path = next((folder / name for name in _CONFIG_NAMES if (folder / name).is_file()), None)
    files = weight_files(folder)
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        tensors.update(_read_file(file).tensors)
    return Component(kind, _read_json(config_path) if config_path else {}, tensors, tuple(map(str, files)))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights of one component's folder; several where they are in shards.

    Preferred are safetensors over ``.bin``, and the plain name over a variant such as ``fp16`` or ``non_ema``.
    Raises ``InvalidModel`` naming the shards that are missing.
    """
    names = [file.name for file in folder.iterdir() if _WEIGHTS.fullmatch(file.name) and file.is_file()]
    if not names:
        return ()
    best = min(names, key=_rank)
    if best.endswith(".json"):
        return tuple(folder / name for name in _shards(folder, best))
    if _is_shard(best):
        raise InvalidModel(f"{folder.name} is incomplete: the index of its parts is missing.", "Download it again.")
    return (folder / best,)


def _shards(folder: Path, index: str) -> list[str]:
    weight_map = _read_json(folder / index).get("weight_map")
    names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
    if not all(map(_WEIGHTS.fullmatch, names)):
        raise InvalidModel(f"{folder.name}/{index} names a file that is no part of the model.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise InvalidModel(f"{folder.name} is incomplete: {', '.join(missing[:3]) or 'every part'} is missing.",
                           "Download it again.")
    return names


def _is_shard(name: str) -> bool:
    return re.search(r"-\d+-of-\d+", name) is not None


def _rank(name: str) -> tuple[bool, bool, bool, bool, str]:
    match = _WEIGHTS.fullmatch(name)
    variant = match and (match["before"] or match["after"] or match["index"])
    return (_is_shard(name), ".bin" in name, bool(variant), variant == ".non_ema", name)


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise InvalidModel(f"{path.name} is larger than a configuration can be.")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.parent.name}/{path.name} is damaged: {error}.", "Download it again.") from error
    if not isinstance(value, dict):
        raise InvalidModel(f"{path.parent.name}/{path.name} is not an object.", "Download it again.")
    return value
