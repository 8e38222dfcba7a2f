"""What the page knows of the chosen checkpoint without loading it: its family, its native size, how it counts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from modules.core.errors import DarkroomError
from modules.families import detect
from modules.families.base import Variant, Vocabulary
from modules.families.clip_tokenizer import clip_tokenizer
from modules.library.headers import read_header
from modules.prompts.chunks import CHUNK_SIZE

USUAL_SIZE = 512


@dataclass(frozen=True)
class Chosen:
    """A checkpoint's native side in pixels, its vocabulary, and what it is."""

    size: int
    vocabulary: Vocabulary
    variant: Variant | None = None

    @property
    def takes(self) -> str:
        """What the denoiser sees beside the noisy latent, as ``Variant.takes``."""
        return self.variant.takes if self.variant else ""


def chosen(app: Any) -> Chosen:
    """Return what is known of the chosen checkpoint; Stable Diffusion's usual values where none is usable."""
    try:
        checkpoints = app.library.checkpoints()
        wanted = app.settings.get().sd_model_checkpoint
        checkpoint = app.library.find_checkpoint(wanted) if wanted else checkpoints[0]
        return _known(checkpoint.path, checkpoint.mtime)
    except (DarkroomError, IndexError):
        return usual()


@functools.lru_cache(maxsize=8)
def _known(path: str, mtime: float) -> Chosen:
    """Return what the header at ``path`` tells; ``mtime`` makes a replaced file be read anew."""
    header = read_header(path)
    family, variant = detect(header)
    return Chosen(variant.default_size, family.vocabulary(header), variant)


def usual() -> Chosen:
    """Return what holds for most checkpoints: 512 pixels, CLIP's vocabulary in chunks of 75 tokens."""
    tokenizer = clip_tokenizer()
    return Chosen(USUAL_SIZE, Vocabulary(tokenizer.encode, tokenizer.comma_id, CHUNK_SIZE))
