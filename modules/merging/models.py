"""Checkpoints to merge: their tensors under the names of the original single file, whatever they are kept in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modules.core.errors import InvalidModel
from modules.core.merge import DROP_EMA, KEEP_EMA
from modules.families import detect, ldm
from modules.families.base import Variant
from modules.families.checkpoint import TextTower
from modules.families.components import read_vae_file
from modules.families.latent_diffusion import LatentDiffusion
from modules.families.open_clip import THIRDS, open_clip_source, original_name
from modules.library.headers import Header, read_header
from modules.merging.tensors import Stored, open_stored, reshaped, stacked, transposed

EMA_PREFIX = "model_ema."
DENOISER = "model."
_PART = re.compile(r"(.+in_proj_(?:weight|bias))\.([qkv])")
_WITHOUT_TEXT_MODEL = re.compile(r"(cond_stage_model\.transformer\.)(embeddings|encoder|final_layer_norm)\.")


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint: its header, what it is, and its tensors by their names in a single file."""

    name: str
    header: Header
    family: str
    variant: Variant
    tensors: Mapping[str, Stored]

    def find(self, name: str) -> Stored | None:
        """Return the tensor that another checkpoint calls ``name``, None without it."""
        return self.tensors.get(name) or self.tensors.get(_spelled(name))


def open_checkpoint(path: str, name: str, ema: str, stack: ExitStack) -> Checkpoint:
    """Return the checkpoint at ``path``; ``stack`` closes its files, ``ema`` is as in the recipe.

    Raises ``InvalidModel`` where it is damaged, or no checkpoint.
    """
    header = read_header(path)
    family, variant = detect(header)
    if header.components:
        tensors = _folder(header, variant, cast(LatentDiffusion, family), stack)
    else:
        tensors = open_stored([path], stack)
    return Checkpoint(name, header, family.name, variant, averaged(tensors, ema))


def averaged(tensors: Mapping[str, Stored], ema: str) -> dict[str, Stored]:
    """Return ``tensors`` with averaged weights kept, dropped, or in the denoiser's place.

    LitEma of latent-diffusion names them without dots. Raises ``InvalidModel`` where they are wanted and missing.
    """
    if ema == KEEP_EMA:
        return dict(tensors)
    plain = {name: stored for name, stored in tensors.items() if not name.startswith(EMA_PREFIX)}
    if ema == DROP_EMA:
        return plain
    found = {name: tensors.get(EMA_PREFIX + name.removeprefix(DENOISER).replace(".", ""))
             for name in plain if name.startswith(ldm.UNET_PREFIX)}
    if not any(found.values()):
        raise InvalidModel("A model has no averaged (EMA) weights.", "Choose to drop or keep them.")
    return plain | {name: stored for name, stored in found.items() if stored is not None}


def open_vae(path: str, stack: ExitStack) -> dict[str, Stored]:
    """Return the tensors of a VAE's file, in either layout, as a single checkpoint names them."""
    config, prefix = read_vae_file(path)
    found = {name.removeprefix(prefix): stored for name, stored in open_stored([path], stack).items()
             if name.startswith(prefix)}
    return _autoencoder(found, config) if ldm.is_diffusers(found) else {
        ldm.VAE_PREFIX + name: stored for name, stored in found.items()
        if name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))}


def yaml_beside(path: str) -> Path | None:
    """Return latent-diffusion's configuration that lies beside a single file, None without one."""
    beside = Path(path).with_suffix(".yaml")
    return beside if Path(path).is_file() and beside.is_file() else None


def _folder(header: Header, variant: Variant, family: LatentDiffusion, stack: ExitStack) -> dict[str, Stored]:
    opened = {name: open_stored(part.files, stack) for name, part in header.components.items() if part.files}
    unet = variant.components["unet"]
    modules = ldm.unet_modules(unet)
    found = {ldm.UNET_PREFIX + ldm.rename(name, modules): stored for name, stored in opened["unet"].items()}
    if "vae" in opened:
        found |= _autoencoder(opened["vae"], variant.components["vae"])
    for tower in family.towers(unet):
        if tower.component in opened:
            found |= text_encoder(opened[tower.component], tower, variant.role)
    return found


def _autoencoder(tensors: Mapping[str, Stored], config: Mapping[str, Any]) -> dict[str, Stored]:
    modules, old = ldm.vae_modules(config), {theirs: ours for ours, theirs in ldm.old_vae_modules().items()}
    found = {}
    for name, stored in tensors.items():
        original = ldm.rename(ldm.rename(name, old), modules)
        # What is a linear layer in diffusers is a convolution of 1x1 in the original.
        flat = ".mid.attn_1." in original and len(stored.info.shape) == 2
        found[ldm.VAE_PREFIX + original] = reshaped(stored, (*stored.info.shape, 1, 1)) if flat else stored
    return found


def text_encoder(tensors: Mapping[str, Stored], tower: TextTower, role: str) -> dict[str, Stored]:
    """Return the tensors of a folder's text encoder under the names of a single file."""
    bare = {name.removeprefix("text_model."): stored for name, stored in tensors.items()}
    if tower.source is not open_clip_source:
        return {tower.prefixes[0] + name: stored for name, stored in bare.items()}
    prefix = tower.prefixes[1 if role == "refiner" else 0]
    named = {original_name(name): stored for name, stored in bare.items() if not name.endswith("position_ids")}
    found = {}
    for name, stored in named.items():
        part = _PART.fullmatch(name)
        if part is None:
            whole = name.removesuffix(".T")
            found[prefix + whole] = stored if whole == name else transposed(stored)
        elif part[2] == THIRDS[0]:
            found[prefix + part[1]] = stacked([named[f"{part[1]}.{third}"] for third in THIRDS])
    return found


def _spelled(name: str) -> str:
    """Return the other spelling of a name of CLIP's text encoder, which some files have."""
    if name.startswith(ldm.CLIP_PREFIXES[0]):
        return ldm.CLIP_PREFIXES[1] + name.removeprefix(ldm.CLIP_PREFIXES[0])
    return _WITHOUT_TEXT_MODEL.sub(r"\1text_model.\2.", name)
