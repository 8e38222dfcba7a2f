"""Embedding files of every kind, written as the programs that people have them from write them."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

TOLD = {"name": "ignored", "step": 4999, "sd_checkpoint": "81761151", "sd_checkpoint_name": "v1-5"}


def drawn(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return seeded vectors."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def original(vectors: torch.Tensor) -> dict[str, Any]:
    """Return what A1111 pickles."""
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, **TOLD}


def write(path: Path, vectors: torch.Tensor, kind: str) -> Path:
    """Write ``vectors`` as ``kind``, one of those below; ``parameters`` is A1111's older form, ``legacy`` torch's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parameters":
        torch.save({**original(vectors), "string_to_param": torch.nn.ParameterDict({"*": vectors})}, path)
    elif kind in ("pt", "legacy"):
        torch.save(original(vectors), path, _use_new_zipfile_serialization=kind == "pt")
    elif kind == "bin":
        torch.save({"<style>": vectors[0] if len(vectors) == 1 else vectors}, path)
    elif kind == "safetensors":
        save_file({"emb_params": vectors}, path)
    elif kind == "text":
        chunk = PngInfo()
        chunk.add_text("sd-ti-embedding", base64.b64encode(as_json(vectors)).decode())
        picture().save(path, pnginfo=chunk)
    elif kind == "bits":
        hidden(vectors).save(path, lossless=True)
    else:
        raise ValueError(kind)
    return path


def as_json(vectors: torch.Tensor, **changed: Any) -> bytes:
    """Return the JSON inside a picture."""
    data = {**original(vectors), "string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}}, **changed}
    return json.dumps(data).encode()


def picture(side: int = 64) -> Image.Image:
    """Return a picture none of whose pixels is black."""
    return Image.fromarray(np.random.default_rng(0).integers(17, 255, (side, side, 3), dtype=np.uint8))


def hidden(vectors: torch.Tensor) -> Image.Image:
    """Return a picture between two blocks of data, in the low four bits of their pixels."""
    middle = np.asarray(picture())
    height = len(middle)
    data = np.frombuffer(zlib.compress(as_json(vectors, name="inside"), 9), np.uint8)
    size = -(-(len(data) + 1) // (3 * height)) * 3 * height
    data = np.resize(data, size).reshape(height, -1, 3)
    seed, mix = 0, []
    for _ in range(size):
        seed = (1664525 * seed + 1013904223) % 2**32
        mix.append(seed % 255)
    mixed = np.array(mix, dtype=np.uint8).reshape(data.shape) & 15
    # A drawing in the high bits, which does not matter; no pixel may be black.
    low, high = (((half & 15) ^ mixed) | 0x50 for half in (data, data >> 4))
    gap = np.zeros((height, 1, 3), dtype=np.uint8)
    return Image.fromarray(np.concatenate([low, gap, middle, gap, high], axis=1).astype(np.uint8))
