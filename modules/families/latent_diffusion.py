"""What the families of latent diffusion with a UNet share: detection, loading, and the calls that need no text.

A family adds which denoisers are its own, its text encoders and how a prompt goes through them, and its numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from modules.core.errors import InvalidModel
from modules.families import autoencoder, checkpoint, clip_text, image_condition, ldm, scheduler
from modules.families.base import Conditioning, ImageCondition, LatentFormat, Model, ModelInput, Variant, Vocabulary
from modules.families.checkpoint import TextTower
from modules.families.clip_tokenizer import clip_tokenizer
from modules.families.components import LoadedModel, build_clip, build_unet, build_vae, shapes_of
from modules.library.headers import Header, read_header
from modules.prompts.chunks import CHUNK_SIZE, Chunk
from modules.sampling.spaces import Published, Space

if TYPE_CHECKING:
    import torch

    from modules.core.settings import Settings
    from modules.runtime.device import Placement

SD_SCALING = 0.18215


class LatentDiffusion:
    """The base of a family; ``scaling`` is that of latents against the autoencoder's, ``native_size`` in pixels.

    ``usual_prediction`` is what a file predicts that does not say. ``original_lora_names`` says whether sd-scripts
    names what it learned for the denoiser by original module paths; ``lora_base`` is what it calls the family.
    """

    id: str
    name: str
    latent: LatentFormat
    scaling: float = SD_SCALING
    native_size: int = 512
    published: Published = "sd1"
    usual_prediction: str = "epsilon"
    original_lora_names: bool = False
    lora_base: str = "sd_v1"

    def fits(self, unet: Mapping[str, Any]) -> bool:
        """Return whether a denoiser of this configuration is the family's."""
        raise NotImplementedError

    def towers(self, unet: Mapping[str, Any]) -> tuple[TextTower, ...]:
        """Return the text encoders that belong to a denoiser of this configuration."""
        raise NotImplementedError

    def role(self, unet: Mapping[str, Any]) -> str:
        """Return ``base`` or ``refiner``."""
        return "base"

    def takes(self, unet: Mapping[str, Any], latent: LatentFormat) -> str:
        """Return what a denoiser of this configuration takes beside a latent; raises ``InvalidModel``."""
        return image_condition.takes(int(unet.get("in_channels", latent.channels)), latent.channels)

    def size(self, prediction: str) -> int:
        """Return the side of the pictures that a model of this prediction was made for."""
        return self.native_size

    def detect(self, header: Header) -> Variant | None:
        """Return the variant of a file or folder of this family, whatever its widths and depth; None for others.

        Raises ``InvalidModel`` for one that is incomplete, or of an unknown kind.
        """
        return self._in_folder(header) if header.components else self._in_file(header)

    def _in_file(self, header: Header) -> Variant | None:
        shapes = shapes_of(header)
        prefix = checkpoint.unet_prefix(shapes)
        if prefix is None:
            return None
        try:
            unet = ldm.unet_config(ldm.under(shapes, prefix))
            if not self.fits(unet):
                return None
            if not ldm.is_mirrored(ldm.under(shapes, prefix), unet):
                raise InvalidModel("The denoiser was made smaller in a way that is not supported.",
                                   "SSD-1B is such a model; choose another.")
            components = {"unet": unet, **checkpoint.text_configs(shapes, self.towers(unet)),
                          **checkpoint.vae_config(shapes, self.scaling)}
        except KeyError as error:
            raise InvalidModel(f"The checkpoint is incomplete: it lacks {error}.", "Download it again.") from error
        return self._variant(components, scheduler.stated(header), "original")

    def _in_folder(self, header: Header) -> Variant | None:
        parts = header.components
        if "unet" not in parts or parts["unet"].kind != "UNet2DConditionModel" or not self.fits(parts["unet"].config):
            return None
        towers = self.towers(parts["unet"].config)
        kinds = {name: part.kind for name, part in parts.items() if name.startswith("text_encoder")}
        if kinds != {tower.component: tower.kind for tower in towers}:
            return None
        names = ("unet", "vae", *kinds)
        components = {name: dict(parts[name].config) for name in names if name in parts}
        stated = dict(parts["scheduler"].config) if "scheduler" in parts else {}
        try:
            return self._variant(components, stated, "diffusers")
        except (TypeError, ValueError) as error:
            raise InvalidModel(f"A config.json of the model is damaged: {error}.",
                               "Download the model again.") from error

    def _variant(self, components: dict[str, dict[str, Any]], stated: Mapping[str, Any], layout: str) -> Variant:
        prediction = scheduler.prediction(stated, self.usual_prediction)
        latent, unet = self._latent_format(components.get("vae", {})), components["unet"]
        takes = self.takes(unet, latent)
        cells = int(unet.get("sample_size") or self.size(prediction) // latent.factor)
        role = self.role(unet)
        return Variant(self.id, takes or role, prediction, latent, cells * latent.factor,
                       {**components, "scheduler": stated}, layout, takes, role)

    def _latent_format(self, vae: Mapping[str, Any]) -> LatentFormat:
        """Return the format of an autoencoder of this configuration; colours of a foreign one are found on loading."""
        own = self.latent
        channels = int(vae.get("latent_channels", own.channels))
        factor = 2 ** (len(vae["block_out_channels"]) - 1) if "block_out_channels" in vae else own.factor
        scaling = vae.get("scaling_factor", self.scaling)
        if (channels, factor, scaling) == (own.channels, own.factor, self.scaling):
            return own
        return LatentFormat(channels, factor)

    def load(self, variant: Variant, path: str, vae_path: str | None, placement: Placement) -> LoadedModel:
        """Load a checkpoint, with the VAE of ``vae_path`` instead of its own where one is given; offline.

        Raises ``InvalidModel`` naming what is missing, misshapen or not a number.
        """
        header = read_header(path)
        towers = self.towers(variant.components["unet"])
        for tower in towers:
            checkpoint.require(variant, tower.component, "text encoder (CLIP)",
                               "Use a full checkpoint, not a pruned denoiser.")
        sources = checkpoint.sources(header, variant, towers)
        vae_config, sources["vae"] = checkpoint.chosen_vae(variant, sources, vae_path, self.scaling)
        modules = {
            "unet": build_unet(variant.components["unet"], sources["unet"], placement),
            **{tower.component: build_clip(variant.components[tower.component], sources[tower.component], placement,
                                           tower.projected) for tower in towers},
            "vae": build_vae(vae_config, sources["vae"], placement),
        }
        tokenizers = {tower.component: checkpoint.tokenizer(header, tower, modules[tower.component])
                      for tower in towers}
        variant = _with_preview(self.settled(variant, modules["unet"], placement), modules["vae"], placement)
        levels = scheduler.space(variant.components["scheduler"], variant.prediction, self.published)
        return LoadedModel(variant, modules, placement, tokenizers, levels)

    def settled(self, variant: Variant, unet: Any, placement: Placement) -> Variant:
        """Return ``variant`` with what only the loaded denoiser can tell."""
        return variant

    def space(self, model: Model) -> Space:
        """Return the model's noise levels and its prediction type."""
        return own(model).space

    def encode(
        self, model: Model, prompts: Sequence[str], settings: Settings, negative: bool = False
    ) -> list[Conditioning]:
        """Encode each prompt alone: context float32 [positions per chunk, width], on the model's device."""
        loaded, skip = own(model), self.clip_skip(settings)
        return [Conditioning(clip_text.encode(
            loaded.modules["text_encoder"], chunks(loaded, "text_encoder", prompt, settings), skip, settings.emphasis,
        )) for prompt in prompts]

    def clip_skip(self, settings: Settings) -> int:
        """Return which layer's output is taken, 1 for the last."""
        return settings.CLIP_stop_at_last_layers

    def vocabulary(self, header: Header) -> Vocabulary:
        """Return how the model of ``header`` counts a prompt: a folder may bring its own tokenizer."""
        component = "text_encoder_2" if "text_encoder_2" in header.components else "text_encoder"
        component = "text_encoder" if "text_encoder" in header.components else component
        tokenizer = checkpoint.own_tokenizer(header, component) or clip_tokenizer()
        text_encoder = header.components.get(component)
        positions = text_encoder.config.get("max_position_embeddings") if text_encoder else None
        size = positions - 2 if isinstance(positions, int) and positions > 2 else CHUNK_SIZE
        return Vocabulary(tokenizer.encode, tokenizer.comma_id, size)

    def micro_conditioning(
        self, model: Model, role: str, width: int, height: int, settings: Settings
    ) -> tuple[float, ...]:
        """Return nothing: the denoiser is told no size."""
        return ()

    def concat(self, model: Model, condition: ImageCondition) -> torch.Tensor | None:
        """Return the channels that the variant takes beside the latent, on the model's device; None for none."""
        loaded = own(model)
        latent, vae = loaded.variant.latent, loaded.modules["vae"]
        cells = (condition.height // latent.factor, condition.width // latent.factor)
        kinds: dict[str, Callable[[], torch.Tensor]] = {
            "inpaint": lambda: image_condition.inpaint(condition, cells, lambda x: autoencoder.encode(vae, x)),
            "edit": lambda: image_condition.edit(condition, cells, latent.channels, lambda x: _unscaled(vae, x)),
            "depth": lambda: image_condition.depth(condition, cells),
        }
        takes = loaded.variant.takes
        return kinds[takes]().to(loaded.placement.device) if takes else None

    def call(self, model: Model, inputs: ModelInput) -> torch.Tensor:
        """Run the denoiser once; returns its raw output [rows, channels, height, width], on its device."""
        import torch

        from modules.runtime.attention import AttentionCall

        loaded = own(model)
        device, dtype = loaded.placement.device, loaded.placement.denoiser
        hooks = _hooks(loaded.applied.hooks, inputs.attention)
        with torch.no_grad():
            output: torch.Tensor = loaded.modules["unet"](
                _with_concat(inputs).to(device, dtype),
                # Filled on the device: a tensor made from a list would be copied there and waited for.
                torch.full((1,), inputs.timestep, dtype=torch.float32, device=device),
                encoder_hidden_states=inputs.context.to(device, dtype),
                added_cond_kwargs=_added(inputs, device, dtype),
                class_labels=_class_labels(inputs, device),
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

    def encode_image(
        self, model: Model, pixels: torch.Tensor, generator: Any = None, tiled: bool = False
    ) -> torch.Tensor:
        """Encode pixels [n, 3, H, W] in 0..1 to latents scaled for the denoiser; the mean without a generator."""
        return autoencoder.encode(model.modules["vae"], pixels, generator, tiled)


def own(model: Model) -> LoadedModel:
    """Return ``model`` as what ``load`` made it."""
    return cast(LoadedModel, model)


def chunks(loaded: LoadedModel, component: str, prompt: str, settings: Settings) -> tuple[Chunk, ...]:
    """Cut a prompt into the chunks of the text encoder ``component``, words learned for it included."""
    size = loaded.modules[component].config.max_position_embeddings - 2
    words = loaded.applied.words.get(component, {})
    return clip_text.chunks(prompt, loaded.tokenizers[component], settings, size, words)


def has_labels(unet: Mapping[str, Any]) -> bool:
    """Return whether a denoiser of this configuration is told more than a timestep and a text."""
    return any(unet.get(key) for key in ("addition_embed_type", "class_embed_type", "num_class_embeds"))


def _with_concat(inputs: ModelInput) -> torch.Tensor:
    import torch

    if inputs.concat is None:
        return inputs.x
    return torch.cat([inputs.x, inputs.concat.to(inputs.x).expand(len(inputs.x), -1, -1, -1)], dim=1)


def _added(inputs: ModelInput, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor] | None:
    """Return what SDXL's denoisers are told besides: the pooled text and the picture's numbers."""
    micro = inputs.added.get("micro")
    if micro is None or inputs.pooled is None:
        return None
    return {"text_embeds": inputs.pooled.to(device, dtype), "time_ids": micro.to(device)}


def _class_labels(inputs: ModelInput, device: torch.device) -> torch.Tensor | None:
    """Return what an upscaler's denoiser is told besides: the level of the noise on the picture, of each row."""
    level: torch.Tensor | None = inputs.added.get("noise_level")
    return None if level is None else level.to(device)


def _hooks(*sets: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Join hooks by layer: those of patches outside those of the call."""
    names = {name for hooks in sets for name in hooks}
    return {name: tuple(hook for hooks in sets for hook in hooks.get(name, ())) for name in names}


def _unscaled(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    return autoencoder.encode(vae, pixels) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)


def _with_preview(variant: Variant, vae: Any, placement: Placement) -> Variant:
    if variant.latent.rgb:
        return variant
    from modules.families.preview import fit_linear
    from modules.runtime.residence import visiting

    with visiting(vae, lambda tensor: tensor.to(placement.device)):
        latent = fit_linear(lambda latents: autoencoder.decode(vae, latents), variant.latent)
    return dataclasses.replace(variant, latent=latent)
