"""Stable Diffusion 1.x: CLIP's text encoder, attention with 8 heads; text to image, inpainting, InstructPix2Pix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.families import ldm
from modules.families.base import LatentFormat
from modules.families.checkpoint import TextTower
from modules.families.components import clip_prefix, clip_source
from modules.families.latent_diffusion import LatentDiffusion, has_labels

# Least-squares fit of the linear preview (``preview.fit_linear``, seed 0) to the decodes of TAESD.
LATENT = LatentFormat(
    channels=4,
    factor=8,
    rgb=((0.3331, 0.2533, 0.2074), (0.2132, 0.3492, 0.1266), (-0.2525, 0.2504, 0.2560), (-0.1855, -0.2308, -0.5417)),
    rgb_bias=(0.0006, -0.1085, -0.2006),
    preview_decoder="taesd_decoder",
)
CLIP = TextTower("text_encoder", ldm.CLIP_PREFIXES, clip_prefix, ldm.clip_config, clip_source)


class StableDiffusion1(LatentDiffusion):
    """The family ``sd15``."""

    id = "sd15"
    name = "Stable Diffusion 1.x"
    latent = LATENT

    def fits(self, unet: Mapping[str, Any]) -> bool:
        """Return whether the projections into attention are convolutions and there are no labels."""
        return not unet.get("use_linear_projection") and not has_labels(unet)

    def towers(self, unet: Mapping[str, Any]) -> tuple[TextTower, ...]:
        """Return CLIP's text encoder."""
        return (CLIP,)
