"""Stable Diffusion 2.x: OpenCLIP's ViT-H, heads of 64; base (512), 768, inpainting and depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.families import ldm
from modules.families.base import Variant
from modules.families.checkpoint import TextTower
from modules.families.latent_diffusion import LatentDiffusion, has_labels
from modules.families.open_clip import open_clip_config, open_clip_prefix, open_clip_source
from modules.families.sd15 import LATENT

if TYPE_CHECKING:
    import torch

    from modules.core.settings import Settings
    from modules.runtime.device import Placement

V_SIZE = 768
# ViT-H has 24 layers; files that were converted back from diffusers lack the last, which is not used.
LAYERS_WITHOUT_LAST = 23
# The probe of AUTOMATIC1111's web UI: at the last timestep an epsilon network gives back about its input.
PROBE_TIMESTEP, PROBE_VALUE, PROBE_THRESHOLD = 999.0, 0.5, -1.0


def penultimate(shapes: ldm.Shapes) -> dict[str, Any]:
    """Return the configuration of a text encoder of a single file that ends before its last layer, as in training."""
    config = open_clip_config(shapes)
    layers = config["num_hidden_layers"]
    return {**config, "num_hidden_layers": layers if layers == LAYERS_WITHOUT_LAST else max(1, layers - 1)}


# A folder's text encoder was saved without its last layer.
OPEN_CLIP = TextTower(
    "text_encoder", ("cond_stage_model.model.", *ldm.CLIP_PREFIXES), open_clip_prefix, penultimate, open_clip_source,
    folder_prefixes=("",), pad_id=0,
)


class StableDiffusion2(LatentDiffusion):
    """The family ``sd2``."""

    id = "sd2"
    name = "Stable Diffusion 2.x"
    latent = LATENT
    lora_base = "sd_v2"

    def fits(self, unet: Mapping[str, Any]) -> bool:
        """Return whether the projections into attention are linear and there are no labels (SDXL, unCLIP)."""
        return bool(unet.get("use_linear_projection")) and not has_labels(unet)

    def towers(self, unet: Mapping[str, Any]) -> tuple[TextTower, ...]:
        """Return OpenCLIP's text encoder."""
        return (OPEN_CLIP,)

    def size(self, prediction: str) -> int:
        """Return 768 for the models of v prediction, which were trained at that size, else 512."""
        return V_SIZE if prediction == "v_prediction" else self.native_size

    def settled(self, variant: Variant, unet: Any, placement: Placement) -> Variant:
        """Return ``variant`` with the prediction that ``unet`` shows, where neither file nor folder says it.

        Models that take more than a latent all predict epsilon.
        """
        from modules.runtime.residence import visiting

        if "prediction_type" in variant.components["scheduler"] or variant.takes:
            return variant
        with visiting(unet, lambda tensor: tensor.to(placement.device)):
            shows_v = predicts_v(unet, placement.denoiser)
        if not shows_v:
            return variant
        size = V_SIZE if not variant.components["unet"].get("sample_size") else variant.default_size
        return dataclasses.replace(variant, prediction="v_prediction", default_size=size)

    def clip_skip(self, settings: Settings) -> int:
        """Return 1 whatever the setting says: the text encoder already ends with the layer to take."""
        return 1


def predicts_v(unet: Any, dtype: torch.dtype) -> bool:
    """Return whether a denoiser predicts v, by one call in ``dtype``; the headers of both kinds are the same."""
    import torch

    x, context = (torch.full(shape, PROBE_VALUE, device=unet.device, dtype=dtype)
                  for shape in ((1, unet.config.in_channels, 8, 8), (1, 2, unet.config.cross_attention_dim)))
    with torch.no_grad():
        output = unet(x, torch.full((1,), PROBE_TIMESTEP, device=unet.device), encoder_hidden_states=context,
                      return_dict=False)[0]
    return bool((output.float() - x.float()).mean() < PROBE_THRESHOLD)
