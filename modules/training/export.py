"""The trained model as a plain diffusers folder in half precision."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

from modules.training import checkpoint, noise, stages, tokenizer
from modules.training.config import TrainingConfig
from modules.training.stages import Workspace

SHARD = "15MB"


def export(config: TrainingConfig, space: Workspace, target: Path) -> list[Path]:
    """Write averaged weights, configurations and tokenizer to ``target`` (no file above 15 MB); return its files."""
    denoiser = stages.trained_denoiser(config, space)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(space.folder / "vae"),
        text_encoder=denoiser.text,
        tokenizer=tokenizer.read(space.folder / "tokenizer", config.diffusion.positions),
        unet=denoiser.unet,
        scheduler=DDIMScheduler(**noise.scheduler_settings(config.diffusion)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.cpu().half()
    pipeline.save_pretrained(target, safe_serialization=True, max_shard_size=SHARD)
    for name in ("vocab.json", "merges.txt"):  # read by programs without the tokenizers library
        shutil.copyfile(space.folder / "tokenizer" / name, target / "tokenizer" / name)
    forget_origin(target)
    return sorted(path for path in target.rglob("*") if path.is_file())


def forget_origin(folder: Path) -> None:
    """Take out of the configurations where on this machine each part was loaded from."""
    for path in folder.glob("*/*config.json"):
        values = json.loads(path.read_text("utf-8"))
        kept = {name: value for name, value in values.items() if name not in ("_name_or_path", "name_or_path")}
        path.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


def run_all(
    config: TrainingConfig, space: Workspace, target: Path, clock: Callable[[], float] = time.monotonic
) -> bool:
    """Run what is left of every stage within the workspace's time, exporting what there is; return whether all is done.

    Call it again, with the same arguments, until it is.
    """
    end = clock() + space.seconds

    def left() -> Workspace:
        return replace(space, seconds=max(0.0, end - clock()))

    if space.start is None and not stages.train_autoencoder(config, left()):
        return False
    if not checkpoint.checkpoints(space.folder / "latents"):
        stages.cache_latents(config, space)
    done = stages.train_diffusion(config, left())
    export(config, space, target)
    return done
