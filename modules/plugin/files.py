"""Model files, for plugins: what a file holds, and what a checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules.core.plan import ModelRef
from modules.families import detect
from modules.families.base import Variant
from modules.library.headers import inert_globals, read_header


def model_variant(model: ModelRef) -> Variant:
    """Return what a checkpoint is, from its header alone; raises ``InvalidModel`` for what is none."""
    return detect(read_header(model.checkpoint))[1]


def read_tensors(path: str | Path) -> Any:
    """Return what a model file holds, tensors included: the object that was pickled, or safetensors' names to tensors.

    Pickles are read weights-only; raises ``InvalidModel`` for one that holds anything else. Imports torch.
    """
    from modules.runtime.weights import read_object

    return read_object(path, inert_globals())
