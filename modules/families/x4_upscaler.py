"""Stable Diffusion's x4 upscaler: its denoiser sees a small picture, noised a little, beside a large one's latent.

The small picture's pixels are as many as the cells of the latent, of which the autoencoder makes four times as many
each way. Source: Rombach et al. 2022, and the x4 upscaler of Stable Diffusion 2, whose denoiser is told the level of
the noise on the picture as a class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel
from modules.families import image_condition, scheduler
from modules.families.base import ImageCondition, LatentFormat, Model, Variant
from modules.families.checkpoint import TextTower
from modules.families.latent_diffusion import LatentDiffusion, own
from modules.families.sd2 import OPEN_CLIP
from modules.library.headers import Header

if TYPE_CHECKING:
    import torch

    from modules.core.settings import Settings

LOW_RES = "low_res_scheduler"
# That of the denoiser and that of the picture, in the terms of diffusers' scheduler_config.json.
SCHEDULE: Mapping[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02}
# The noisiest level that the settings can ask for.
MAX_NOISE_LEVEL = 350


class X4Upscaler(LatentDiffusion):
    """The family ``x4_upscaler``."""

    id = "x4_upscaler"
    name = "Stable Diffusion x4 upscaler"
    latent = LatentFormat(channels=4, factor=4)
    scaling = 0.08333
    usual_prediction = "v_prediction"

    def fits(self, unet: Mapping[str, Any]) -> bool:
        """Return whether the denoiser takes a picture's colours beside a latent, and a class."""
        taken = int(unet.get("in_channels", 0)) - int(unet.get("out_channels", 0))
        return bool(unet.get("num_class_embeds")) and taken == image_condition.COLOURS

    def towers(self, unet: Mapping[str, Any]) -> tuple[TextTower, ...]:
        """Return OpenCLIP's text encoder."""
        return (OPEN_CLIP,)

    def role(self, unet: Mapping[str, Any]) -> str:
        """Return ``upscaler``."""
        return "upscaler"

    def takes(self, unet: Mapping[str, Any], latent: LatentFormat) -> str:
        """Return ``low_res``: a small picture."""
        return "low_res"

    def clip_skip(self, settings: Settings) -> int:
        """Return 1 whatever the setting says: the text encoder already ends with the layer to take."""
        return 1

    def detect(self, header: Header) -> Variant | None:
        """Return the variant of a file or folder; ``low_res_scheduler`` of its components is how pictures are noised.

        Raises ``InvalidModel`` for one that is incomplete, or knows too few levels of noise.
        """
        variant = super().detect(header)
        if variant is None:
            return None
        stated = header.components[LOW_RES].config if LOW_RES in header.components else {}
        components = {**variant.components, "scheduler": {**SCHEDULE, **variant.components["scheduler"]},
                      LOW_RES: {**SCHEDULE, **stated}}
        _check_levels(components["unet"]["num_class_embeds"], stated.get("num_train_timesteps", MAX_NOISE_LEVEL + 1))
        return dataclasses.replace(variant, components=components)

    def concat(self, model: Model, condition: ImageCondition) -> torch.Tensor | None:
        """Return the small picture, noised: float32 [n, 3, h, w] in the latent's size, on the model's device.

        Raises ``InvalidRequest`` without a picture.
        """
        loaded = own(model)
        levels = scheduler.space(loaded.variant.components[LOW_RES], loaded.variant.prediction)
        share = levels.alphas_cumprod[condition.noise_level]
        return image_condition.low_resolution(condition, share).to(loaded.placement.device)


def _check_levels(*known: Any) -> None:
    """Raise ``InvalidModel`` where one of these numbers of levels does not reach up to the noisiest."""
    try:
        fewest = min(map(int, known))
    except (TypeError, ValueError) as error:
        raise InvalidModel(f"A config.json of the model is damaged: {error}.", "Download the model again.") from error
    if fewest <= MAX_NOISE_LEVEL:
        raise InvalidModel(f"The upscaler knows {fewest} levels of noise, and there are {MAX_NOISE_LEVEL + 1}.",
                           "Download the model again.")
