"""From latents to pictures and back by a loaded model's autoencoder, also where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from modules.core.plan import Picture
from modules.core.result import FinishedPicture
from modules.engine.entries import picture_parameters
from modules.engine.loader import Loaded, Loader
from modules.engine.planner import other_checkpoints
from modules.engine.preview import to_image
from modules.engine.work import Work
from modules.imaging.faces import FaceRestorer
from modules.runtime.exhaustion import is_out_of_memory, out_of_memory

T = TypeVar("T")


def decode(loader: Loader, loaded: Loaded, latent: torch.Tensor) -> Image.Image:
    """Return one latent [1, channels, h, w] as a picture; where memory does not suffice, free some and use tiles.

    Raises ``OutOfMemory`` where tiles are too large as well.
    """
    def attempt(tiled: bool) -> Image.Image:
        return to_image(loaded.family.decode(loaded.model, latent, tiled)[0])

    factor = loaded.model.variant.latent.factor
    width, height = latent.shape[-1] * factor, latent.shape[-2] * factor
    at_once = loader.place(loaded, "vae", width * height)
    return _spared(loader, "decoding", (width, height), lambda again: attempt(again or not at_once))


def encode(loader: Loader, loaded: Loaded, image: Image.Image) -> torch.Tensor:
    """Return a picture as a latent [1, channels, h, w] scaled for the denoiser; memory as in ``decode``."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1).unsqueeze(0)
    at_once = loader.place(loaded, "vae", image.width * image.height)

    def attempt(tiled: bool) -> torch.Tensor:
        return loaded.family.encode_image(loaded.model, pixels, None, tiled)
    return _spared(loader, "encoding", image.size, lambda again: attempt(again or not at_once))


def with_faces_restored(work: Work, restorer: FaceRestorer, image: Image.Image) -> Image.Image:
    """Return a decoded picture with its faces made good; may be interrupted between one face and the next."""
    work.watch.phase("Restoring faces")
    fidelity = work.plan.request.settings.code_former_weight
    return restorer.restore(image, fidelity, lambda done, total: work.watch.check())


def finished(
    work: Work, picture: Picture, image: Image.Image, *, complete: bool = True, stage: str = ""
) -> FinishedPicture:
    """Return a decoded picture with its infotext's entries, ready to be handed over."""
    return FinishedPicture(
        picture.index, image, picture.prompt, picture.negative_prompt, picture.seed, picture.subseed,
        work.plan.passes[0].segments[0].model, picture_parameters(work.plan, picture), complete,
        other_checkpoints(work.plan), stage,
    )


def _spared(loader: Loader, doing: str, size: tuple[int, int], attempt: Callable[[bool], T]) -> T:
    """Return ``attempt(False)`` or, where memory does not suffice, what ``attempt(True)`` gives once some is freed."""
    try:
        return attempt(False)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    loader.release()
    try:
        return attempt(True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(doing, *size, 1, loader.placement.device) from error
