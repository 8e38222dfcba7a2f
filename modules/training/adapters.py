"""The adapters' stages: a LoRA or an embedding for a model that is there, from its folder to one file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save
from transformers import CLIPTokenizer

from modules.core.errors import InvalidModel, InvalidRequest, NotFound
from modules.training import captioned, checkpoint, denoiser, diffusion, latents, loop, lora, noise, sample, stages
from modules.training import textual_inversion as inversion
from modules.training.config import AdapterConfig, EmbeddingTraining, LoraTraining
from modules.training.denoiser import Denoiser
from modules.training.diffusion import DiffusionStage
from modules.training.latents import Cache
from modules.training.stages import Workspace
from modules.training.styles import STYLES
from modules.training.tokenizer import encode

PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
PROMPTS = 16

Spell = Callable[[Sequence[str]], Sequence[str]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """The model that an adapter is for: its ``name``, its parts in float32, and its scheduler's ``settings``."""

    name: str
    vae: AutoencoderKL
    model: Denoiser
    tokenizer: CLIPTokenizer
    settings: dict[str, Any]


def read_base(folder: Path | None) -> Base:
    """Read a diffusers folder of Stable Diffusion 1 or of its kind; raises ``NotFound`` or ``InvalidModel``."""
    if folder is None or not all((folder / part).is_dir() for part in PARTS):
        raise NotFound(f"There is no model in {folder}.", f"Name a diffusers folder with {', '.join(PARTS)}.")
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True).float().eval()
    model = denoiser.read(folder)
    unet = model.unet.config
    if unet.in_channels != vae.config.latent_channels or unet.addition_embed_type or unet.class_embed_type:
        raise InvalidModel(f"{folder.name} wants more than a latent and a text.", "Adapters for it cannot be made.")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    settings = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Base(folder.resolve().name, vae.requires_grad_(False), model, tokenizer, settings)


@dataclass(frozen=True)
class Examples:
    """What is learned from: pictures in batches [n, 3, s, s], and the same number of ``captions`` for each.

    ``names`` tell which pictures they are.
    """

    pictures: Iterable[torch.Tensor]
    captions: list[list[str]]
    names: list[str]


def examples(config: AdapterConfig, space: Workspace) -> Examples:
    """Return scenes of the prepared data, or the captioned pictures where ``space.archive`` is a folder of them."""
    if space.archive.is_dir():
        found = captioned.found(space.archive)
        most = max(len(one.captions) for one in found)
        captions = [[one.captions[number % len(one.captions)] for number in range(most)] for one in found]
        return Examples(captioned.batches(found, config.data.size), captions, [one.path.name for one in found])
    data = stages.subjects(config, space.archive)
    scenes, captions = stages.composed(config.diffusion, data)
    return Examples(latents.batches(data, scenes, space.device), captions, [str(scene) for scene in scenes])


def cached(config: AdapterConfig, space: Workspace, base: Base, spell: Spell, folder: Path) -> Cache:
    """Return the latents of the pictures in their style and the ids of their captions, as ``spell`` writes them.

    They are kept in ``folder``, and made anew where they were made of something else.
    """
    if config.style not in STYLES:
        raise InvalidRequest(f"There is no style {config.style!r}.", f"Known are {', '.join(STYLES)}.")
    data = examples(config, space)
    spelled = list(spell([text for group in data.captions for text in group]))
    told = [base.name, config.style, config.data.size, data.names, spelled]
    made_of = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    state = checkpoint.newest(folder)
    if state is None or state["made_of"] != made_of:
        found = latents.encode(base.vae.to(space.device), map(STYLES[config.style], data.pictures))
        scaled = (found.float() * base.vae.config.scaling_factor).half()
        tokens = encode(base.tokenizer, [*spelled, ""]).to(torch.int32)
        state = {"latents": scaled, "tokens": tokens[:-1].unflatten(0, (len(data.names), -1)), "empty": tokens[-1]}
        checkpoint.save(folder, 0, {**state, "made_of": made_of}, keep=1)
    return Cache(state["latents"], state["tokens"], state["empty"])


def train(
    kind: type[DiffusionStage], config: AdapterConfig, space: Workspace, base: Base, spell: Spell, folder: Path
) -> tuple[DiffusionStage, bool]:
    """Run a stage for what is not frozen of the base, resuming where it was; return it and whether all is done."""
    wanted = noise.of_model(config.diffusion, base.settings)
    cache = cached(config, space, base, spell, folder / "latents")
    prompts = (
        encode(base.tokenizer, spell(wanted.grid)) if wanted.grid else diffusion.first_wordings(cache.tokens, PROMPTS)
    )
    vae = base.vae.to(space.device)
    stage = kind(wanted, base.model, cache, prompts, lambda found: sample.decode(vae, found), space.device, folder)
    logger.info("%d parameters for %d scenes", sum(value.numel() for value in loop.learned(base.model)),
                len(cache.latents))
    done = loop.run(stage, wanted.loop, folder, space.limits(folder.name))
    return stage, done


def train_lora(config: LoraTraining, space: Workspace, output: Path) -> bool:
    """Train a LoRA for the model in ``space.start`` and write what there is; return whether all steps are done."""
    base = read_base(space.start)
    lora.attach(base.model, config.lora, config.diffusion.loop.seed)
    stage, done = train(lora.LoraStage, config, space, base, list, space.folder / "lora")
    with stage.average.lent(stage.model):
        tensors = lora.tensors(stage.model, lora.PRECISIONS[config.lora.precision])
    told = {**lora.metadata(config.lora, base.name), "ss_output_name": output.stem}
    write(output, tensors, {**told, **modelspec(config, base, output.stem, "lora")})
    return done


def train_embedding(config: EmbeddingTraining, space: Workspace, output: Path) -> bool:
    """Train an embedding for the model in ``space.start`` and write what there is; return whether all is done."""
    base, own, seed = read_base(space.start), config.embedding, config.diffusion.loop.seed
    inversion.attach(base.model, base.tokenizer, own)

    def spell(texts: Sequence[str]) -> list[str]:
        return inversion.spelled(inversion.mentioned(texts, own, f"{seed}/templates"), own)

    stage, done = train(DiffusionStage, config, space, base, spell, space.folder / "embedding")
    with stage.average.lent(stage.model):
        tensors = {"emb_params": inversion.vectors(stage.model)}
    write(output, tensors, {**modelspec(config, base, output.stem, "textual-inversion"),
                            "modelspec.trigger_phrase": output.stem})
    return done


def modelspec(config: AdapterConfig, base: Base, name: str, kind: str) -> dict[str, str]:
    """Return what a file says of itself, under the names of Stability's ModelSpec 1.0.0."""
    v_prediction = base.settings.get("prediction_type") == "v_prediction"
    told = {
        "sai_model_spec": "1.0.0",
        "architecture": f"stable-diffusion-v1/{kind}",
        "implementation": "diffusers",
        "title": config.about.title or name,
        "description": config.about.description,
        "license": config.about.license,
        "resolution": f"{config.data.size}x{config.data.size}",
        "prediction_type": "v" if v_prediction else "epsilon",
        "usage_hint": f"For {base.name}.",
    }
    return {f"modelspec.{field}": value for field, value in told.items() if value}


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(tensors, metadata))
    partial.replace(path)
    logger.info("%9d  %s", path.stat().st_size, path)
