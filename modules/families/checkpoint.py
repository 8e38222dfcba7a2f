"""Where a checkpoint keeps its networks: single files in the original layout, and diffusers folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel
from modules.families import ldm
from modules.families.base import Variant
from modules.families.clip_tokenizer import ClipTokenizer, clip_tokenizer, folder_tokenizer
from modules.families.components import Source, open_tensors, read_vae_file, shapes_of, unet_source, vae_source
from modules.library.headers import Header

if TYPE_CHECKING:
    import torch

# What every denoiser of latent diffusion has, and a ControlNet, which begins like one, has not.
UNET_SIGNS = ("input_blocks.0.0.weight", "middle_block.1.proj_in.weight", "out.2.weight")


@dataclass(frozen=True)
class TextTower:
    """One text encoder of a family: its component's name, and how its tensors are found and read.

    ``find`` gives the prefix under which names hold it, one of ``prefixes`` in single files and of
    ``folder_prefixes`` in a diffusers folder; ``config`` reads shapes without that prefix. Single files are padded
    with ``pad_id``, or the end token where that is None. ``projected`` ones have a projection of the pooled output.
    """

    component: str
    prefixes: tuple[str, ...]
    find: Callable[[Mapping[str, Any], Sequence[str]], str | None]
    config: Callable[[ldm.Shapes], dict[str, Any]]
    source: Callable[[Mapping[str, torch.Tensor], str], Source]
    folder_prefixes: tuple[str, ...] = ("text_model.", "")
    pad_id: int | None = None
    projected: bool = False

    @property
    def kind(self) -> str:
        """The class that ``model_index.json`` names."""
        return "CLIPTextModelWithProjection" if self.projected else "CLIPTextModel"


def unet_prefix(shapes: ldm.Shapes) -> str | None:
    """Return the prefix under which a single file holds a denoiser, None without one."""
    prefixes = (ldm.UNET_PREFIX, "")
    return next((prefix for prefix in prefixes if all(prefix + sign in shapes for sign in UNET_SIGNS)), None)


def is_of_denoiser(name: str) -> bool:
    """Return whether a tensor of a single file, its prefix left out, is the denoiser's."""
    return name.startswith(("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out."))


def text_configs(shapes: ldm.Shapes, towers: Sequence[TextTower]) -> dict[str, dict[str, Any]]:
    """Return the configuration of each of ``towers`` that a single file holds."""
    found = {tower: tower.find(shapes, tower.prefixes) for tower in towers}
    return {tower.component: tower.config(ldm.under(shapes, prefix))
            for tower, prefix in found.items() if prefix is not None}


def vae_config(shapes: ldm.Shapes, scaling: float) -> dict[str, dict[str, Any]]:
    """Return the configuration of a single file's autoencoder as ``vae``, nothing without one."""
    own = ldm.under(shapes, ldm.VAE_PREFIX)
    return {"vae": {**ldm.vae_config(own), "scaling_factor": scaling}} if "decoder.conv_in.weight" in own else {}


def require(variant: Variant, component: str, name: str, hint: str) -> None:
    """Raise ``InvalidModel`` where ``component`` is missing."""
    if component not in variant.components:
        raise InvalidModel(f"The checkpoint has no {name}.", hint)


def sources(header: Header, variant: Variant, towers: Sequence[TextTower],
            opened: Callable[..., Mapping[str, torch.Tensor]] = open_tensors) -> dict[str, Source]:
    """Return where the tensors of each component are; ``opened`` gives those of the files at some paths by name."""
    if header.components:
        return _folder_sources(header, towers, opened)
    return _file_sources(opened(header.path), header, variant, towers)


def _folder_sources(header: Header, towers: Sequence[TextTower],
                    opened: Callable[..., Mapping[str, torch.Tensor]]) -> dict[str, Source]:
    weights = {name: opened(*header.components[name].files)
               for name in ("unet", "vae", *(tower.component for tower in towers)) if name in header.components}
    found = {"unet": Source(weights["unet"], lambda name: name, "The denoiser (UNet)")}
    if "vae" in weights:
        found["vae"] = vae_source(weights["vae"], "", header.components["vae"].config)
    for tower in towers:
        own = weights[tower.component]
        found[tower.component] = tower.source(own, tower.find(own, tower.folder_prefixes) or "")
    return found


def _file_sources(weights: Mapping[str, torch.Tensor], header: Header, variant: Variant,
                  towers: Sequence[TextTower]) -> dict[str, Source]:
    found = {"unet": unet_source(weights, unet_prefix(shapes_of(header)) or "", variant.components["unet"])}
    for tower in towers:
        found[tower.component] = tower.source(weights, tower.find(weights, tower.prefixes) or "")
    if "vae" in variant.components:
        found["vae"] = vae_source(weights, ldm.VAE_PREFIX, variant.components["vae"])
    return found


def chosen_vae(
    variant: Variant, own: Mapping[str, Source], vae_path: str | None, scaling: float
) -> tuple[Mapping[str, Any], Source]:
    """Return configuration and tensors of the VAE to use: the given file's, else the checkpoint's own."""
    if vae_path is None:
        require(variant, "vae", "VAE", "Choose a VAE in the settings, or put one into models/VAE.")
        return variant.components["vae"], own["vae"]
    config, prefix = read_vae_file(vae_path)
    name, latent = Path(vae_path).name, variant.latent
    if config["latent_channels"] != latent.channels:
        raise InvalidModel(f"The VAE {name} is for latents of {config['latent_channels']} channels, "
                           f"not {latent.channels}.", "Choose another VAE, or Automatic.")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if factor != latent.factor:
        raise InvalidModel(f"The VAE {name} has {factor} pixels to a side of a latent cell, not {latent.factor}.",
                           "Choose another VAE, or Automatic.")
    return {**config, "scaling_factor": scaling}, vae_source(open_tensors(vae_path), prefix, config)


def tokenizer(header: Header, tower: TextTower, text_encoder: Any) -> ClipTokenizer:
    """Return the tokenizer of ``tower``: a folder's own, else CLIP's.

    Raises ``InvalidModel`` where it has tokens that ``text_encoder`` does not know.
    """
    found = own_tokenizer(header, tower.component) or _padded(clip_tokenizer(), tower.pad_id)
    known, needed = text_encoder.config.vocab_size, max(found.vocabulary.values()) + 1
    if needed > known:
        raise InvalidModel(f"The text encoder knows {known} tokens, its tokenizer has {needed}.",
                           "The model's files do not belong together.")
    return found


def _padded(found: ClipTokenizer, pad_id: int | None) -> ClipTokenizer:
    return found if pad_id is None else dataclasses.replace(found, pad_id=pad_id)


def own_tokenizer(header: Header, component: str) -> ClipTokenizer | None:
    """Return the tokenizer that a folder brings for a text encoder, None without one."""
    folder = Path(header.path) / component.replace("text_encoder", "tokenizer")
    return folder_tokenizer(folder) if header.components and folder.is_dir() else None
