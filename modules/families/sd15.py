"""Stable Diffusion 1.x: a single file, with CLIP's text encoder and a VAE in it, or a diffusers folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modules.core.errors import InvalidModel
from modules.families import autoencoder, clip_text, ldm
from modules.families.base import Conditioning, ImageCondition, LatentFormat, Model, ModelInput, Variant, Vocabulary
from modules.families.clip_tokenizer import ClipTokenizer, clip_tokenizer, folder_tokenizer
from modules.families.components import (
    LoadedModel,
    Source,
    build_clip,
    build_unet,
    build_vae,
    clip_prefix,
    clip_source,
    open_tensors,
    read_vae_file,
    shapes_of,
    unet_source,
    vae_source,
)
from modules.library.headers import Header, read_header
from modules.prompts.chunks import CHUNK_SIZE
from modules.sampling.spaces import Prediction, Space, space_from_alphas_cumprod, space_from_betas

if TYPE_CHECKING:
    import torch

    from modules.core.settings import Settings
    from modules.runtime.device import Placement

# Least-squares fit of the linear preview (``preview.fit_linear``, seed 0) to the decodes of TAESD.
LATENT = LatentFormat(
    channels=4,
    factor=8,
    rgb=((0.3331, 0.2533, 0.2074), (0.2132, 0.3492, 0.1266), (-0.2525, 0.2504, 0.2560), (-0.1855, -0.2308, -0.5417)),
    rgb_bias=(0.0006, -0.1085, -0.2006),
    preview_decoder="taesd_decoder",
)
SCALING = 0.18215
NATIVE_SIZE = 512
PREDICTIONS = ("epsilon", "v_prediction")
# The smallest signal that is left at the last step of a schedule rescaled to end in pure noise, as A1111 sets it.
TERMINAL_ALPHA = 4.8973451890853435e-08


class StableDiffusion1:
    """The family ``sd15``."""

    id = "sd15"
    name = "Stable Diffusion 1.x"

    def detect(self, header: Header) -> Variant | None:
        """Return the variant ``base`` for Stable Diffusion 1, whatever its widths and depth; None for anything else.

        Raises ``InvalidModel`` for a variant that takes more than a noisy latent, or a file that is incomplete.
        """
        return _detect_folder(header) if header.components else _detect_file(header)

    def load(self, variant: Variant, path: str, vae_path: str | None, placement: Placement) -> LoadedModel:
        """Load a checkpoint, with the VAE of ``vae_path`` instead of its own where one is given; offline.

        Raises ``InvalidModel`` naming what is missing, misshapen or not a number.
        """
        header = read_header(path)
        _require(variant, "unet", "denoiser (UNet)", "It may be a VAE or an adapter.")
        _require(variant, "text_encoder", "text encoder (CLIP)", "Use a full checkpoint, not a pruned denoiser.")
        sources = _folder_sources(header) if header.components else _file_sources(header, variant)
        vae_config, sources["vae"] = _vae(variant, sources, vae_path)
        modules = {
            "unet": build_unet(variant.components["unet"], sources["unet"], placement),
            "text_encoder": build_clip(variant.components["text_encoder"], sources["text_encoder"], placement),
            "vae": build_vae(vae_config, sources["vae"], placement),
        }
        tokenizer = _tokenizer(header)
        _check_vocabulary(tokenizer, modules["text_encoder"])
        return LoadedModel(_with_preview(variant, modules["vae"]), modules, placement, tokenizer, _space(variant))

    def space(self, model: Model) -> Space:
        """Return the model's noise levels and its prediction type."""
        return _own(model).space

    def encode(
        self, model: Model, prompts: Sequence[str], settings: Settings, negative: bool = False
    ) -> list[Conditioning]:
        """Encode each prompt alone: context float32 [positions per chunk, width], on the model's device."""
        loaded = _own(model)
        text_encoder = loaded.modules["text_encoder"]
        size = text_encoder.config.max_position_embeddings - 2
        words = loaded.applied.words.get("text_encoder", {})
        skip, emphasis = settings.CLIP_stop_at_last_layers, settings.emphasis
        return [
            Conditioning(clip_text.encode(
                text_encoder, clip_text.chunks(prompt, loaded.tokenizer, settings, size, words), skip, emphasis,
            ))
            for prompt in prompts
        ]

    def vocabulary(self, header: Header) -> Vocabulary:
        """Return how the model of ``header`` counts a prompt: a folder may bring its own tokenizer."""
        tokenizer = _tokenizer(header)
        text_encoder = header.components.get("text_encoder")
        positions = text_encoder.config.get("max_position_embeddings") if text_encoder else None
        size = positions - 2 if isinstance(positions, int) and positions > 2 else CHUNK_SIZE
        return Vocabulary(tokenizer.encode, tokenizer.comma_id, size)

    def micro_conditioning(
        self, model: Model, role: str, width: int, height: int, settings: Settings
    ) -> tuple[float, ...]:
        """Return nothing: the denoiser is told no size."""
        return ()

    def concat(self, model: Model, condition: ImageCondition) -> torch.Tensor | None:
        """Return None: the denoiser takes the noisy latent alone."""
        return None

    def call(self, model: Model, inputs: ModelInput) -> torch.Tensor:
        """Run the denoiser once; returns its raw output [rows, channels, height, width], on its device."""
        import torch

        from modules.runtime.attention import AttentionCall

        loaded = _own(model)
        device, dtype = loaded.placement.device, loaded.placement.denoiser
        x = inputs.x if inputs.concat is None else torch.cat([inputs.x, inputs.concat.to(inputs.x)], dim=1)
        hooks = _hooks(loaded.applied.hooks, inputs.attention)
        with torch.no_grad():
            output: torch.Tensor = loaded.modules["unet"](
                x.to(device, dtype),
                torch.tensor([inputs.timestep], dtype=torch.float32, device=device),
                encoder_hidden_states=inputs.context.to(device, dtype),
                down_block_additional_residuals=inputs.residuals.get("down"),
                mid_block_additional_residual=inputs.residuals.get("mid"),
                down_intrablock_additional_residuals=inputs.residuals.get("intra"),
                cross_attention_kwargs={"attention": AttentionCall(inputs, hooks)},
                return_dict=False,
            )[0]
        return output

    def decode(self, model: Model, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
        """Decode latents [n, channels, h, w] to float32 pixels [n, 3, H, W] in 0..1, on the CPU."""
        return autoencoder.decode(model.modules["vae"], latents, tiled)

    def encode_image(self, model: Model, pixels: torch.Tensor, generator: Any = None) -> torch.Tensor:
        """Encode pixels [n, 3, H, W] in 0..1 to latents scaled for the denoiser; the mean without a generator."""
        return autoencoder.encode(model.modules["vae"], pixels, generator)


def _own(model: Model) -> LoadedModel:
    return cast(LoadedModel, model)


def _hooks(*sets: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Join hooks by layer: those of patches outside those of the call."""
    names = {name for hooks in sets for name in hooks}
    return {name: tuple(hook for hooks in sets for hook in hooks.get(name, ())) for name in names}


def _require(variant: Variant, component: str, name: str, hint: str) -> None:
    if component not in variant.components:
        raise InvalidModel(f"The checkpoint has no {name}.", hint)


def _detect_file(header: Header) -> Variant | None:
    shapes = shapes_of(header)
    prefix = _unet_prefix(shapes)
    if prefix is None or not _is_sd1(ldm.under(shapes, prefix)):
        return None
    try:
        components = {"unet": ldm.unet_config(ldm.under(shapes, prefix)), **_text_encoder(shapes), **_own_vae(shapes)}
    except KeyError as error:
        raise InvalidModel(f"The checkpoint is incomplete: it lacks {error}.", "Download it again.") from error
    marked = {"zero_terminal_snr": True} if "ztsnr" in shapes else {}
    prediction = "v_prediction" if "v_pred" in shapes else "epsilon"
    return _variant(components, {"prediction_type": prediction, **marked}, "original")


def _unet_prefix(shapes: ldm.Shapes) -> str | None:
    return next((p for p in (ldm.UNET_PREFIX, "") if f"{p}input_blocks.0.0.weight" in shapes), None)


def _is_sd1(unet: ldm.Shapes) -> bool:
    """Its siblings have class labels (SDXL) or linear projections into attention (SD 2)."""
    projection = unet.get("middle_block.1.proj_in.weight", ())
    return "label_emb.0.0.weight" not in unet and len(projection) == 4 and "out.2.weight" in unet


def _text_encoder(shapes: ldm.Shapes) -> dict[str, dict[str, Any]]:
    prefix = clip_prefix(shapes, ldm.CLIP_PREFIXES)
    return {} if prefix is None else {"text_encoder": ldm.clip_config(ldm.under(shapes, prefix))}


def _own_vae(shapes: ldm.Shapes) -> dict[str, dict[str, Any]]:
    own = ldm.under(shapes, ldm.VAE_PREFIX)
    return {"vae": ldm.vae_config(own)} if "decoder.conv_in.weight" in own else {}


def _detect_folder(header: Header) -> Variant | None:
    parts = header.components
    kinds = {name: part.kind for name, part in parts.items()}
    if kinds.get("unet") != "UNet2DConditionModel" or kinds.get("text_encoder") != "CLIPTextModel":
        return None
    unet = parts["unet"].config
    if unet.get("use_linear_projection") or unet.get("addition_embed_type") or "text_encoder_2" in kinds:
        return None
    components = {name: dict(parts[name].config) for name in ("unet", "text_encoder", "vae") if name in parts}
    scheduler = dict(parts["scheduler"].config) if "scheduler" in parts else {}
    try:
        return _variant(components, scheduler, "diffusers")
    except (TypeError, ValueError) as error:
        raise InvalidModel(f"A config.json of the model is damaged: {error}.", "Download the model again.") from error


def _variant(components: dict[str, dict[str, Any]], scheduler: Mapping[str, Any], layout: str) -> Variant:
    prediction = str(scheduler.get("prediction_type", "epsilon"))
    if prediction not in PREDICTIONS:
        raise InvalidModel(f"The model predicts {prediction!r}; only {' and '.join(PREDICTIONS)} are supported.")
    vae = components.get("vae", {})
    latent = _latent_format(vae)
    taken = int(components["unet"].get("in_channels", latent.channels))
    if taken != latent.channels:
        kinds = {2 * latent.channels + 1: "an inpainting model", 2 * latent.channels: "an InstructPix2Pix model"}
        what = kinds.get(taken, "an unknown variant")
        raise InvalidModel(f"This is {what} of Stable Diffusion 1 (its denoiser takes {taken} channels), "
                           "which is not supported yet.", "Choose a checkpoint made for text to image.")
    size = int(components["unet"].get("sample_size") or NATIVE_SIZE // latent.factor) * latent.factor
    return Variant("sd15", "base", prediction, latent, size, {**components, "scheduler": scheduler}, layout)


def _latent_format(vae: Mapping[str, Any]) -> LatentFormat:
    """Return the format of an autoencoder of this configuration; the colours of a foreign one are found on loading."""
    channels = int(vae.get("latent_channels", LATENT.channels))
    factor = 2 ** (len(vae["block_out_channels"]) - 1) if "block_out_channels" in vae else LATENT.factor
    if (channels, factor, vae.get("scaling_factor", SCALING)) == (LATENT.channels, LATENT.factor, SCALING):
        return LATENT
    return LatentFormat(channels, factor)


def _with_preview(variant: Variant, vae: Any) -> Variant:
    if variant.latent.rgb:
        return variant
    from modules.families.preview import fit_linear

    latent = fit_linear(lambda latents: autoencoder.decode(vae, latents), variant.latent)
    return dataclasses.replace(variant, latent=latent)


def _folder_sources(header: Header) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for name in ("unet", "text_encoder", "vae"):
        if name not in header.components:
            continue
        weights = open_tensors(*header.components[name].files)
        if name == "vae":
            sources[name] = vae_source(weights, "", header.components[name].config)
        elif name == "text_encoder":
            sources[name] = clip_source(weights, clip_prefix(weights, ("text_model.", "")) or "")
        else:
            sources[name] = Source(weights, lambda own: own, "The denoiser (UNet)")
    return sources


def _file_sources(header: Header, variant: Variant) -> dict[str, Source]:
    weights = open_tensors(header.path)
    sources = {
        "unet": unet_source(weights, _unet_prefix(shapes_of(header)) or "", variant.components["unet"]),
        "text_encoder": clip_source(weights, clip_prefix(weights, ldm.CLIP_PREFIXES) or ""),
    }
    if "vae" in variant.components:
        sources["vae"] = vae_source(weights, ldm.VAE_PREFIX, variant.components["vae"])
    return sources


def _vae(
    variant: Variant, sources: Mapping[str, Source], vae_path: str | None
) -> tuple[Mapping[str, Any], Source]:
    """Return configuration and tensors of the VAE to use: the given file's, else the checkpoint's own."""
    if vae_path is None:
        _require(variant, "vae", "VAE", "Choose a VAE in the settings, or put one into models/VAE.")
        return variant.components["vae"], sources["vae"]
    config, prefix = read_vae_file(vae_path)
    if config["latent_channels"] != variant.latent.channels:
        raise InvalidModel(f"The VAE {Path(vae_path).name} is for latents of {config['latent_channels']} channels, "
                           f"not {variant.latent.channels}.", "Choose another VAE, or Automatic.")
    return config, vae_source(open_tensors(vae_path), prefix, config)


def _tokenizer(header: Header) -> ClipTokenizer:
    folder = Path(header.path) / "tokenizer"
    return folder_tokenizer(folder) if header.components and folder.is_dir() else clip_tokenizer()


def _check_vocabulary(tokenizer: ClipTokenizer, text_encoder: Any) -> None:
    known, needed = text_encoder.config.vocab_size, max(tokenizer.vocabulary.values()) + 1
    if needed > known:
        raise InvalidModel(f"The text encoder knows {known} tokens, its tokenizer has {needed}.",
                           "The model's files do not belong together.")


def _space(variant: Variant) -> Space:
    """Return the noise levels of a scheduler's configuration; Stable Diffusion's own where it says nothing."""
    config = variant.components["scheduler"]
    prediction = cast(Prediction, variant.prediction)
    try:
        space = space_from_betas(
            str(config.get("beta_schedule", "scaled_linear")), float(config.get("beta_start", 0.00085)),
            float(config.get("beta_end", 0.012)), int(config.get("num_train_timesteps", 1000)), prediction,
        )
    except (ValueError, TypeError) as error:
        raise InvalidModel(f"The model's scheduler_config.json is not usable: {error}.") from error
    if not (config.get("zero_terminal_snr") or config.get("rescale_betas_zero_snr")):
        return space
    return space_from_alphas_cumprod(zero_terminal(space.alphas_cumprod), prediction)


def zero_terminal(alphas_cumprod: Sequence[float]) -> tuple[float, ...]:
    """Return the table shifted and scaled to end in (almost) pure noise (Lin et al. 2023, algorithm 1)."""
    roots = [math.sqrt(value) for value in alphas_cumprod]
    scale = roots[0] / (roots[0] - roots[-1])
    rescaled = [((root - roots[-1]) * scale) ** 2 for root in roots]
    return (*rescaled[:-1], TERMINAL_ALPHA)
