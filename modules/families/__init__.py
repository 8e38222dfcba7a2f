"""The model families, in the order in which they are asked what a file is."""

from __future__ import annotations

from modules.core.errors import InvalidModel
from modules.families.base import Family, Variant
from modules.families.foreign import impression
from modules.families.sd2 import StableDiffusion2
from modules.families.sd15 import StableDiffusion1
from modules.families.sdxl import StableDiffusionXL
from modules.families.x4_upscaler import X4Upscaler
from modules.library.headers import Header

__all__ = ["FAMILIES", "Family", "Variant", "detect"]

FAMILIES: tuple[Family, ...] = (StableDiffusion1(), StableDiffusion2(), StableDiffusionXL(), X4Upscaler())


def detect(header: Header) -> tuple[Family, Variant]:
    """Return the family and variant of a checkpoint.

    Raises ``InvalidModel``, saying what the file seems to be, where no family knows it.
    """
    for family in FAMILIES:
        variant = family.detect(header)
        if variant is not None:
            return family, variant
    raise InvalidModel(f"This file cannot be used as a checkpoint: {impression(header)}.",
                       f"Supported are checkpoints of {', '.join(family.name for family in FAMILIES)}.")
