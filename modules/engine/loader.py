"""Checkpoints by name, loaded when they are needed, and prompts encoded by them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from modules.core.errors import NoModel
from modules.core.plan import ModelRef
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine.conditioning import ConditioningCache
from modules.engine.exhaustion import is_out_of_memory
from modules.engine.planner import ModelNames
from modules.families import Family, detect
from modules.families.base import Conditioning, Model
from modules.library.files import Library
from modules.library.headers import read_header
from modules.runtime.device import Placement
from modules.runtime.memory import Models


@dataclass(frozen=True)
class Loaded:
    """A model in memory, the family that knows how to use it, and what it was loaded from."""

    family: Family
    model: Model
    ref: ModelRef
    key: Hashable


class Loader:
    """Finds, loads and keeps models; the budget of ``models`` decides how many."""

    def __init__(self, library: Library, models: Models, placement: Placement) -> None:
        self._library = library
        self._models = models
        self._conditionings = ConditioningCache()
        self.placement = placement

    def resolve(self, request: Request) -> tuple[ModelRef, ModelNames]:
        """Return the checkpoint and VAE that ``request`` names, and what the infotext calls them.

        Raises ``NoModel`` when there is no checkpoint at all, ``NotFound`` for a name that no file has.
        """
        checkpoints = self._library.checkpoints()
        if not checkpoints:
            raise NoModel("There is no checkpoint.", "Put a .safetensors file into models/Stable-diffusion.")
        wanted = request.model or request.settings.sd_model_checkpoint
        checkpoint = self._library.find_checkpoint(wanted) if wanted else checkpoints[0]
        vae = self._library.find_vae(request.vae or request.settings.sd_vae, checkpoint)
        ref = ModelRef(checkpoint.path, None if vae is None else vae.path)
        return ref, ModelNames(checkpoint.stem, "" if vae is None else vae.name.rsplit("/", 1)[-1])

    def load(self, ref: ModelRef, phase: Callable[[str], None]) -> Loaded:
        """Return the model of ``ref``; where memory does not suffice, everything else is freed first.

        A file that was replaced on disk is loaded again.
        """
        header = read_header(ref.checkpoint)
        family, variant = detect(header)
        key = (ref, _stamp(ref.checkpoint), ref.vae and _stamp(ref.vae))

        def load() -> Model:
            phase("Loading the model")
            return family.load(variant, ref.checkpoint, ref.vae, self.placement)

        size = sum(tensor.bytes for tensor in header.tensors.values())
        try:
            model = self._models.get(key, load, size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.free()
            model = self._models.get(key, load, size)
        return Loaded(family, model, ref, key)

    def encode(
        self, loaded: Loaded, patches: Hashable, texts: Sequence[str], settings: Settings
    ) -> Mapping[str, Conditioning]:
        """Return the encoding of each text; known ones under the same model, ``patches`` and settings are reused."""
        key = (loaded.key, patches, settings.CLIP_stop_at_last_layers, settings.emphasis,
               settings.comma_padding_backtrack)
        return self._conditionings.encode(
            texts, key, lambda missing: loaded.family.encode(loaded.model, missing, settings)
        )

    def place(self, loaded: Loaded, component: str) -> None:
        """Bring ``component`` (``text_encoder``, ``unet``, ``vae``) to where it computes; nothing if it is there."""

    def free(self) -> None:
        """Forget every model and encoding."""
        self._conditionings.clear()
        self._models.free()

    def release(self) -> None:
        """Give back memory that is cached but not in use."""
        self._models.release()


def _stamp(path: str) -> tuple[int, int]:
    """Return size and time of change, which tell whether a file was replaced."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
