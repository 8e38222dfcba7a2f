"""Training state on disk: written in small pieces, whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from modules.core.errors import InvalidModel

PIECE = 15 * 2**20
MANIFEST = "manifest.json"


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write ``state`` (tensors, numbers, strings, nested) as ``folder/step-XXXXXXX`` and drop all but ``keep``.

    Pieces are at most 15 MiB. The manifest is part of a folder that gets its name by one rename, so a killed process
    leaves either the whole checkpoint or none.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale)
    writing = folder / f".writing-{step:07}"
    writing.mkdir()
    pieces = []
    for number, start in enumerate(range(0, len(data), PIECE)):
        piece = data[start : start + PIECE]
        name = f"part-{number:03}.bin"
        (writing / name).write_bytes(piece)
        pieces.append({"name": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    (writing / MANIFEST).write_text(json.dumps({"step": step, "pieces": pieces}, indent=1))
    target = folder / f"step-{step:07}"
    if target.exists():
        shutil.rmtree(target)
    writing.rename(target)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / MANIFEST).is_file())


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU; raises ``InvalidModel`` when a piece is missing or damaged."""
    manifest = json.loads((path / MANIFEST).read_text())
    buffer = io.BytesIO()
    for piece in manifest["pieces"]:
        file = path / piece["name"]
        data = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(data).hexdigest() != piece["sha256"]:
            raise InvalidModel(f"{file} is missing or damaged.", "Delete its folder to resume from the one before.")
        buffer.write(data)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
    return state


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint in ``folder``, or None where there is none."""
    found = checkpoints(folder)
    return read(found[-1]) if found else None
