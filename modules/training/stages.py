"""The stages of a run, each from a configuration and a workspace; a command or a tab calls them."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from modules.core.errors import NotFound
from modules.training import captions, checkpoint, dataset, denoiser, diffusion, latents, loop, sample, tokenizer
from modules.training.autoencoder import AutoencoderStage, build
from modules.training.captions import Scene
from modules.training.config import AdapterConfig, DiffusionConfig, TrainingConfig
from modules.training.dataset import Dataset
from modules.training.denoiser import Denoiser, build_text, build_unet
from modules.training.latents import Cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Where a run reads and writes: the prepared ``archive``, its ``folder``, its ``device``, and its time.

    ``start`` is an exported model to go on from, with a fresh optimizer, where the checkpoints themselves are lost; for
    an adapter, the model that it is for. An adapter's ``archive`` may be a folder of captioned pictures.
    """

    archive: Path
    folder: Path
    device: torch.device
    seconds: float = float("inf")
    start: Path | None = None

    def limits(self, stage: str) -> loop.Limits:
        """Return when ``stage`` stops early: its time, or a file ``stop`` in its folder."""
        return loop.Limits(self.seconds, self.folder / stage / "stop")


def train_autoencoder(config: TrainingConfig, space: Workspace) -> bool:
    """Run the autoencoder stage, resuming where it was; return whether all its steps are done."""
    found = dataset.load(space.archive, config.data.groups, config.data.tones)
    train, held = dataset.split(found.entries, config.data.held_out)
    folder, wanted = space.folder / "autoencoder", config.autoencoder
    if checkpoint.checkpoints(folder):  # its weights come from there
        wanted = replace(wanted, linear_start=0)
    stage = AutoencoderStage(wanted, found.select(train), found.select(held), space.device, folder)
    return loop.run(stage, config.autoencoder.loop, folder, space.limits("autoencoder"))


def trained_autoencoder(config: TrainingConfig, space: Workspace) -> AutoencoderKL:
    """Return the autoencoder with its averaged weights; raises ``NotFound`` before its stage has saved any."""
    if space.start is not None:
        return AutoencoderKL.from_pretrained(space.start / "vae").float().to(space.device).eval()
    state = checkpoint.newest(space.folder / "autoencoder")
    if state is None:
        raise NotFound(f"There is no autoencoder in {space.folder}.", "Run the stage autoencoder first.")
    model = build(config.autoencoder, config.data.size)
    model.load_state_dict({**state["stage"]["model"], **state["stage"]["average"]})
    return model.to(space.device).eval()


def subjects(config: TrainingConfig | AdapterConfig, archive: Path) -> Dataset:
    """Return the pictures that the denoiser, or an adapter of it, learns."""
    found = dataset.load(archive, tones=config.data.tones)
    wanted = config.diffusion
    groups = wanted.groups or config.data.groups
    if not groups and not wanted.labels:
        return found
    return found.select(
        [i for i, entry in enumerate(found.entries) if entry.group in groups or entry.label in wanted.labels]
    )


def composed(config: DiffusionConfig, data: Dataset) -> tuple[list[Scene], list[list[str]]]:
    """Return the scenes that a configuration draws of ``data``, and the wordings of each."""
    wanted, seed = config.captions, config.loop.seed
    scenes = captions.draw_scenes(data.entries, wanted, config.draws, seed)
    texts = [
        captions.wordings(scene, data.entries[scene.index], wanted, config.wordings, seed) for scene in scenes
    ]
    return scenes, texts


def cache_latents(config: TrainingConfig, space: Workspace) -> None:
    """Encode all scenes; writes ``vae``, ``tokenizer``, ``latents`` and ``subjects.json`` into the run's folder."""
    data = subjects(config, space.archive)
    scenes, texts = composed(config.diffusion, data)
    tokens = _tokens(config, space, texts)
    vae = trained_autoencoder(config, space)
    scaled = latents.standardise(vae, latents.encode(vae, latents.batches(data, scenes, space.device)))
    vae.save_pretrained(space.folder / "vae")
    state = {"latents": scaled.half(), "tokens": tokens[:-1].unflatten(0, (len(scenes), -1)), "empty": tokens[-1]}
    checkpoint.save(space.folder / "latents", 0, state, keep=1)
    (space.folder / "subjects.json").write_text(json.dumps([entry.label for entry in data.entries], indent=0))
    logger.info("%d scenes of %d pictures, scaling factor %.4f", len(scenes), len(data.entries),
                vae.config.scaling_factor)


def _tokens(config: TrainingConfig, space: Workspace, texts: list[list[str]]) -> torch.Tensor:
    """Return the ids (int16) of every wording and of the empty caption, from a tokenizer trained on them or given."""
    flat = [text for group in texts for text in group]
    wanted, folder = config.diffusion, space.folder / "tokenizer"
    if space.start is not None:
        shutil.copytree(space.start / "tokenizer", folder, dirs_exist_ok=True)
        own = tokenizer.read(folder, wanted.positions)
    else:
        own = tokenizer.train(flat, wanted.vocabulary, wanted.positions, folder)
    return tokenizer.encode(own, [*flat, ""]).to(torch.int16)


def read_cache(space: Workspace) -> Cache:
    """Return the cached latents; raises ``NotFound`` before their stage has run."""
    state = checkpoint.newest(space.folder / "latents")
    if state is None:
        raise NotFound(f"There are no cached latents in {space.folder}.", "Run the stage latents first.")
    return Cache(state["latents"], state["tokens"], state["empty"])


def build_denoiser(config: DiffusionConfig, own: CLIPTokenizer, shape: torch.Size) -> Denoiser:
    """Return an untrained denoiser for latents of ``shape`` [n, c, h, w], the same for the same seed."""
    torch.manual_seed(config.loop.seed)
    unet = build_unet(config, shape[1], shape[-1])
    return Denoiser(unet, build_text(config, len(own), own.bos_token_id, own.eos_token_id))


def train_diffusion(config: TrainingConfig, space: Workspace) -> bool:
    """Run the diffusion stage on the cached latents; return whether all its steps are done."""
    wanted, folder = config.diffusion, space.folder / "diffusion"
    cache = read_cache(space)
    own = tokenizer.read(space.folder / "tokenizer", wanted.positions)
    vae = AutoencoderKL.from_pretrained(space.folder / "vae").to(space.device).eval()
    prompts = (
        tokenizer.encode(own, wanted.grid) if wanted.grid else diffusion.first_wordings(cache.tokens, 16)
    )
    model = build_denoiser(wanted, own, cache.latents.shape)
    if space.start is not None:
        model = denoiser.read(space.start)
    logger.info("%.2f M parameters", sum(value.numel() for value in model.parameters()) / 1e6)
    stage = diffusion.DiffusionStage(
        wanted, model, cache, prompts, lambda found: sample.decode(vae, found), space.device, folder
    )
    if space.start is None and not checkpoint.checkpoints(folder):
        stage.warm_up()
    return loop.run(stage, wanted.loop, folder, space.limits("diffusion"))


def trained_denoiser(config: TrainingConfig, space: Workspace) -> Denoiser:
    """Return the denoiser with its averaged weights; raises ``NotFound`` before its stage has saved any."""
    state = checkpoint.newest(space.folder / "diffusion")
    if state is None:
        raise NotFound(f"There is no denoiser in {space.folder}.", "Run the stage diffusion first.")
    own = tokenizer.read(space.folder / "tokenizer", config.diffusion.positions)
    model = build_denoiser(config.diffusion, own, read_cache(space).latents.shape)
    model.load_state_dict({**state["stage"]["model"], **state["stage"]["average"]})
    return model.to(space.device).eval()
