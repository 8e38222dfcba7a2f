"""Checkpoints by name, loaded when they are needed, and prompts encoded by them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch

from modules.core.errors import NoModel
from modules.core.plan import ModelRef
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine.conditioning import ConditioningCache
from modules.engine.planner import Checkpoint, Checkpoints
from modules.families import Family, detect
from modules.families.base import Conditioning, Model, Variant
from modules.library.files import Library, ModelFile
from modules.library.headers import read_header
from modules.runtime.device import Placement
from modules.runtime.exhaustion import is_out_of_memory
from modules.runtime.memory import Models
from modules.runtime.placement import ENCODING_BYTES, LEAST_PIXELS, coding_bytes, sampling_bytes
from modules.runtime.residence import cast_bytes

DEFAULTS = Settings()


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

    def resolve(self, request: Request) -> Checkpoints:
        """Return the checkpoints and VAEs that ``request`` names.

        Raises ``NoModel`` when there is no checkpoint at all, ``NotFound`` for a name that no file has.
        """
        files = self._library.checkpoints()
        if not files:
            raise NoModel("There is no checkpoint.", "Put a .safetensors file into models/Stable-diffusion.")
        wanted = request.merge.model_a if request.merge else request.model or request.settings.sd_model_checkpoint
        base = self._checkpoint(self._library.find_checkpoint(wanted) if wanted else files[0], request)
        return Checkpoints(
            base if request.merge is None else dataclasses.replace(base, name=request.merge.name or base.name),
            self._other(request.hr_checkpoint if request.enable_hr else "", request),
            self._other(request.refiner, request),
        )

    def variant(self, ref: ModelRef) -> Variant:
        """Return what the checkpoint of ``ref`` is, from its header alone."""
        return detect(read_header(ref.checkpoint))[1]

    def _other(self, wanted: str, request: Request) -> Checkpoint | None:
        return self._checkpoint(self._library.find_checkpoint(wanted), request) if wanted else None

    def _checkpoint(self, file: ModelFile, request: Request) -> Checkpoint:
        vae = self._library.find_vae(request.vae or request.settings.sd_vae, file)
        ref = ModelRef(file.path, None if vae is None else vae.path)
        return Checkpoint(ref, file.stem, "" if vae is None else vae.name.rsplit("/", 1)[-1], self.variant(ref).takes)

    def load(self, ref: ModelRef, phase: Callable[[str], None], settings: Settings = DEFAULTS) -> Loaded:
        """Return the model of ``ref``; where memory does not suffice, everything else is freed first.

        A file that was replaced on disk, or that ``settings`` want held in another type, is loaded again.
        """
        header = read_header(ref.checkpoint)
        family, variant = detect(header)
        placement = self._stored(settings.fp8_storage, variant)
        key = (ref, _stamp(ref.checkpoint), ref.vae and _stamp(ref.vae), placement.storage)

        def load() -> Model:
            phase("Loading the model")
            return family.load(variant, ref.checkpoint, ref.vae, placement)

        size = sum(tensor.bytes for tensor in header.tensors.values())
        try:
            model = self._models.get(key, load, size, settings.sd_checkpoints_limit)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.free()
            model = self._models.get(key, load, size, settings.sd_checkpoints_limit)
        return Loaded(family, model, ref, key)

    def _stored(self, fp8_storage: str, variant: Variant) -> Placement:
        """Return the placement with the denoiser held in eight bits where the setting says so."""
        if fp8_storage == "Disable" or (fp8_storage == "Enable for SDXL" and variant.family != "sdxl"):
            return self.placement
        return dataclasses.replace(self.placement, storage=torch.float8_e4m3fn, cast_above=0)

    def encode(
        self, loaded: Loaded, patches: Hashable, texts: Sequence[str], settings: Settings, negative: bool = False
    ) -> Mapping[str, Conditioning]:
        """Return the encoding of each text; known ones under the same model, ``patches`` and settings are reused."""
        key = (loaded.key, patches, settings.CLIP_stop_at_last_layers, settings.emphasis,
               settings.comma_padding_backtrack, settings.sdxl_clip_l_skip, negative)

        def encode(missing: Sequence[str]) -> list[Conditioning]:
            self.place(loaded, "text_encoder")
            return loaded.family.encode(loaded.model, missing, settings, negative)

        return self._conditionings.encode(texts, key, encode)

    def place(self, loaded: Loaded, component: str, pixels: int = LEAST_PIXELS) -> bool:
        """Bring ``component`` (``text_encoder``, ``unet``, ``vae``) to where it computes; nothing if it is there.

        ``pixels`` are those of all rows or pictures of one call. Returns whether there is memory for them at once,
        else row by row or in tiles. Raises ``OutOfMemory`` where not even that is possible.
        """
        modules = loaded.model.modules
        names = [name for name in modules if name.startswith(component)]
        if not names:
            return True
        workings: tuple[int, ...] = (ENCODING_BYTES,)
        if component == "vae":
            workings = coding_bytes(pixels, modules["vae"].dtype.itemsize)
        elif component == "unet":
            dtype = self.placement.denoiser
            cast = cast_bytes(modules["unet"], dtype)
            workings = tuple(working + cast for working in sampling_bytes(pixels, dtype.itemsize))
        return self._models.need(loaded.model, names, workings) == workings[0]

    def rest(self) -> None:
        """A request has ended: leave nothing on the device where nothing is to be kept there."""
        self._models.rest()

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
