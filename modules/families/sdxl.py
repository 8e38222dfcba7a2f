"""Stable Diffusion XL: CLIP-L and OpenCLIP bigG side by side; text to image, inpainting, and the refiner.

Podell et al. 2023. The denoiser is also told the pooled text and six numbers: the picture's height and width, where it
was cropped, and the height and width again; the refiner has bigG alone and an aesthetic score for the last two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel
from modules.families import autoencoder, clip_text, ldm
from modules.families.base import Conditioning, LatentFormat, Model, Variant
from modules.families.checkpoint import TextTower
from modules.families.components import LoadedModel, clip_prefix, clip_source
from modules.families.latent_diffusion import LatentDiffusion, chunks, own
from modules.families.open_clip import open_clip_config, open_clip_prefix, open_clip_source
from modules.library.headers import Header
from modules.prompts.chunks import Chunk

if TYPE_CHECKING:
    import torch

    from modules.core.settings import Settings
    from modules.runtime.device import Placement

# Least-squares fit of the linear preview (``preview.fit_linear``, seed 0) to the decodes of TAESDXL.
LATENT = LatentFormat(
    channels=4,
    factor=8,
    rgb=((0.3799, 0.4191, 0.4048), (-0.2771, 0.1547, 0.0832), (0.1259, 0.2148, -0.0515), (-0.3150, -0.2733, -0.2346)),
    rgb_bias=(0.1361, -0.0802, 0.0324),
    preview_decoder="taesdxl_decoder",
)
CLIP_L = TextTower(
    "text_encoder", ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.0.transformer."),
    clip_prefix, ldm.clip_config, clip_source,
)
# In a folder the projection stands beside the encoder, so names are looked for from the root.
BIG_G = TextTower(
    "text_encoder_2", ("conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
    open_clip_prefix, open_clip_config, open_clip_source, ("",), pad_id=0, projected=True,
)
ENCODERS = ("text_encoder", "text_encoder_2")
POOLED = "text_encoder_2"
PENULTIMATE = 2
REFINER_NUMBERS = 5
NEGATIVE_ROLES = ("uncond", "image_uncond")


class StableDiffusionXL(LatentDiffusion):
    """The family ``sdxl``."""

    id = "sdxl"
    name = "Stable Diffusion XL"
    latent = LATENT
    scaling = 0.13025
    native_size = 1024
    published = "sdxl"
    original_lora_names = True
    lora_base = "sdxl_base_v1-0"

    def fits(self, unet: Mapping[str, Any]) -> bool:
        """Return whether the denoiser is told text and numbers, and has no attention at its finest level."""
        blocks = unet.get("down_block_types") or ("",)
        return unet.get("addition_embed_type") == "text_time" and blocks[0] == "DownBlock2D"

    def role(self, unet: Mapping[str, Any]) -> str:
        """Return ``refiner`` where the pooled text is as wide as the context, there being one encoder only."""
        numbers = REFINER_NUMBERS * unet["addition_time_embed_dim"]
        is_refiner = unet["projection_class_embeddings_input_dim"] - numbers == unet["cross_attention_dim"]
        return "refiner" if is_refiner else "base"

    def towers(self, unet: Mapping[str, Any]) -> tuple[TextTower, ...]:
        """Return CLIP-L and bigG; bigG alone for the refiner."""
        return (BIG_G,) if self.role(unet) == "refiner" else (CLIP_L, BIG_G)

    def detect(self, header: Header) -> Variant | None:
        """Return the variant of a file or folder of this family, whatever its widths and depth; None for others.

        Raises ``InvalidModel`` for one that is incomplete, or of an unknown kind.
        """
        try:
            variant = super().detect(header)
        except (TypeError, KeyError) as error:
            raise InvalidModel(f"The model's config.json is damaged: {error}.", "Download it again.") from error
        if variant and ("edm_mean" in header.tensors or variant.components.get("vae", {}).get("latents_mean")):
            raise InvalidModel("This SDXL model was trained in the formulation of EDM, which is not supported.",
                               "Playground v2.5 is such a model; choose another.")
        return variant

    def load(self, variant: Variant, path: str, vae_path: str | None, placement: Placement) -> LoadedModel:
        """Load a checkpoint as ``LatentDiffusion`` does; the autoencoder, which overflows in float16, in a wider type.

        Raises ``InvalidModel`` naming what is missing, misshapen or not a number.
        """
        return super().load(variant, path, vae_path, autoencoder.wide_range(placement))

    def encode(
        self, model: Model, prompts: Sequence[str], settings: Settings, negative: bool = False
    ) -> list[Conditioning]:
        """Encode each prompt alone: context float32 [positions per chunk, width] and pooled [width], on the device.

        Contexts of the encoders stand side by side; the pooled one is of the first chunk. An empty negative prompt is
        all zeros, as in the original code and AUTOMATIC1111's web UI.
        """
        import torch

        found = [_encoded(own(model), prompt, settings) for prompt in prompts]
        if not negative:
            return found
        return [item if prompt else Conditioning(torch.zeros_like(item.context), torch.zeros_like(item.pooled))
                for prompt, item in zip(prompts, found, strict=True)]

    def micro_conditioning(
        self, model: Model, role: str, width: int, height: int, settings: Settings
    ) -> tuple[float, ...]:
        """Return height, width, top and left of the crop, then height and width, or the refiner's aesthetic score."""
        told = (float(height), float(width), float(settings.sdxl_crop_top), float(settings.sdxl_crop_left))
        if model.variant.role != "refiner":
            return (*told, float(height), float(width))
        high, low = settings.sdxl_refiner_high_aesthetic_score, settings.sdxl_refiner_low_aesthetic_score
        return (*told, low if role in NEGATIVE_ROLES else high)


def _encoded(loaded: LoadedModel, prompt: str, settings: Settings) -> Conditioning:
    import torch

    pieces = {name: chunks(loaded, name, prompt, settings) for name in ENCODERS if name in loaded.modules}
    # A learned word may have more vectors for one encoder than for the other.
    count = max(map(len, pieces.values()))
    for name, own_pieces in pieces.items():
        pieces[name] = own_pieces + chunks(loaded, name, "", settings) * (count - len(own_pieces))
    outputs = {name: _outputs(loaded.modules[name], own_pieces) for name, own_pieces in pieces.items()}
    contexts = [
        _emphasised(_layer(name, outputs[name].hidden_states, settings), own_pieces, settings.emphasis)
        for name, own_pieces in pieces.items()
    ]
    # The end token's output; what a configuration calls it is wrong in many folders, so the tokenizer is asked.
    end = pieces[POOLED][0].tokens.index(loaded.tokenizers[POOLED].end_id)
    with torch.no_grad():
        pooled = loaded.modules[POOLED].text_projection(outputs[POOLED].last_hidden_state[0, end])
    return Conditioning(torch.cat(contexts, dim=-1), pooled.float())


def _outputs(text_encoder: Any, pieces: Sequence[Chunk]) -> Any:
    import torch

    tokens = torch.tensor([piece.tokens for piece in pieces], device=text_encoder.device)
    with torch.no_grad():
        return text_encoder(input_ids=tokens, output_hidden_states=True)


def _layer(name: str, states: Sequence[torch.Tensor], settings: Settings) -> torch.Tensor:
    """Return the output of the last layer but one, without the final norm; CLIP skip moves CLIP-L's if it is asked to.

    ``states`` are the input of the first layer and the output of each.
    """
    skip = settings.CLIP_stop_at_last_layers if name == "text_encoder" and settings.sdxl_clip_l_skip else PENULTIMATE
    return states[-min(skip, len(states) - 1)]


def _emphasised(states: torch.Tensor, pieces: Sequence[Chunk], emphasis: str) -> torch.Tensor:
    import torch

    weights = torch.tensor([piece.weights for piece in pieces], device=states.device)
    return clip_text.emphasise(states.float(), weights, emphasis).flatten(0, 1)
