"""Checkpoints to merge: their tensors under the names of the original single file, whatever they are kept in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from modules.merging.tensors import Stored, open_stored, reshaped, rows, stacked, transposed

EMA_PREFIX = "model_ema."
DENOISER = "model."
_PART = re.compile(r"(.+in_proj_(?:weight|bias))\.([qkv])")
_WITHOUT_TEXT_MODEL = re.compile(r"(cond_stage_model\.transformer\.)(embeddings|encoder|final_layer_norm)\.")


@dataclass(frozen=True)
class Target:
    """A tensor of a file: its ``name`` there, the ``original`` name in a single file, and what of that it is."""

    name: str
    original: str
    view: Callable[[Stored], Stored] = lambda stored: stored


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint: its header, what it is, and its tensors by their names in a single file.

    ``targets`` are a folder's own tensors by component; none for files.
    """

    name: str
    header: Header
    family: str
    variant: Variant
    tensors: Mapping[str, Stored]
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)

    @property
    def latent_diffusion(self) -> LatentDiffusion:
        """Its family: each that is merged is of the latent-diffusion line."""
        return cast(LatentDiffusion, detect(self.header)[0])

    def find(self, name: str) -> Stored | None:
        """Return the tensor that another checkpoint calls ``name``, None without it."""
        return self.tensors.get(name) or self.tensors.get(_spelled(name))


def open_checkpoint(path: str, name: str, ema: str, stack: ExitStack) -> Checkpoint:
    """Return the checkpoint at ``path``; ``stack`` closes its files, ``ema`` is as in the recipe.

    Raises ``InvalidModel`` where it is damaged, or no checkpoint.
    """
    header = read_header(path)
    family, variant = detect(header)
    if not header.components:
        return Checkpoint(name, header, family.name, variant, averaged(open_stored([path], stack), ema))
    opened = {part: open_stored(one.files, stack) for part, one in header.components.items() if one.files}
    targets = folder_targets(opened, variant, cast(LatentDiffusion, family))
    return Checkpoint(name, header, family.name, variant, _originals(opened, targets), targets)


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
    if ldm.is_diffusers(found):
        return _originals({"vae": found}, {"vae": autoencoder_targets(found, config)})
    return {
        ldm.VAE_PREFIX + name: stored for name, stored in found.items()
        if name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))}


def yaml_beside(path: str) -> Path | None:
    """Return latent-diffusion's configuration that lies beside a single file, None without one."""
    beside = Path(path).with_suffix(".yaml")
    return beside if Path(path).is_file() and beside.is_file() else None


def folder_targets(opened: Mapping[str, Mapping[str, Stored]], variant: Variant,
                   family: LatentDiffusion) -> dict[str, list[Target]]:
    """Return a folder's tensors, in its components that a single file has, too, with their original names."""
    unet = variant.components["unet"]
    modules = ldm.unet_modules(unet)
    found = {"unet": [Target(name, ldm.UNET_PREFIX + ldm.rename(name, modules)) for name in opened["unet"]]}
    if "vae" in opened:
        found["vae"] = autoencoder_targets(opened["vae"], variant.components["vae"])
    for tower in family.towers(unet):
        if tower.component in opened:
            found[tower.component] = text_targets(opened[tower.component], tower, variant.role)
    return found


def autoencoder_targets(tensors: Mapping[str, Stored], config: Mapping[str, Any]) -> list[Target]:
    """Return the tensors of an autoencoder in diffusers' layout with their original names."""
    modules, old = ldm.vae_modules(config), {theirs: ours for ours, theirs in ldm.old_vae_modules().items()}
    return [Target(name, ldm.VAE_PREFIX + ldm.rename(ldm.rename(name, old), modules), _in_shape(stored.info.shape))
            for name, stored in tensors.items()]


def text_targets(tensors: Mapping[str, Stored], tower: TextTower, role: str) -> list[Target]:
    """Return the tensors of a folder's text encoder with their original names; in OpenCLIP's some are parts."""
    bare = {name: name.removeprefix("text_model.") for name in tensors}
    if tower.source is not open_clip_source:
        return [Target(name, tower.prefixes[0] + inner) for name, inner in bare.items()]
    prefix, found = tower.prefixes[1 if role == "refiner" else 0], []
    for name, inner in bare.items():
        if inner.endswith("position_ids"):
            continue
        original = original_name(inner)
        part = _PART.fullmatch(original)
        view = _third(THIRDS.index(part[2])) if part else transposed if original.endswith(".T") else _as_it_is
        found.append(Target(name, prefix + (part[1] if part else original.removesuffix(".T")), view))
    return found


def _originals(opened: Mapping[str, Mapping[str, Stored]],
               targets: Mapping[str, Sequence[Target]]) -> dict[str, Stored]:
    """Return a folder's tensors under their original names, parts put together."""
    found: dict[str, Stored] = {}
    parts: dict[str, list[Stored]] = {}
    for component, several in targets.items():
        for target in sorted(several, key=lambda one: one.name.replace(".q_proj.", ".0.").replace(".k_proj.", ".1.")):
            stored = opened[component][target.name]
            if "in_proj_" in target.original:
                parts.setdefault(target.original, []).append(stored)
            elif target.view is transposed:
                found[target.original] = transposed(stored)
            else:
                found[target.original] = _original_shape(target.original, stored)
    return found | {name: stacked(three) for name, three in parts.items()}


def _original_shape(name: str, stored: Stored) -> Stored:
    # What is a linear layer of the autoencoder in diffusers is a convolution of 1x1 in the original.
    flat = ".mid.attn_1." in name and len(stored.info.shape) == 2
    return reshaped(stored, (*stored.info.shape, 1, 1)) if flat else stored


def _as_it_is(stored: Stored) -> Stored:
    return stored


def _in_shape(shape: tuple[int, ...]) -> Callable[[Stored], Stored]:
    return lambda stored: reshaped(stored, shape)


def _third(index: int) -> Callable[[Stored], Stored]:
    def view(stored: Stored) -> Stored:
        count = stored.info.shape[0] // len(THIRDS)
        return rows(stored, index * count, count)
    return view


def _spelled(name: str) -> str:
    """Return the other spelling of a name of CLIP's text encoder, which some files have."""
    if name.startswith(ldm.CLIP_PREFIXES[0]):
        return ldm.CLIP_PREFIXES[1] + name.removeprefix(ldm.CLIP_PREFIXES[0])
    return _WITHOUT_TEXT_MODEL.sub(r"\1text_model.\2.", name)
