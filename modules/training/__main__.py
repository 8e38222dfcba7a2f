"""One command per stage: python -m modules.training STAGE."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from modules.core.errors import DarkroomError
from modules.training import adapters, dataset, export, stages
from modules.training import config as configuration
from modules.training.config import AdapterConfig, EmbeddingTraining, LoraTraining, TrainingConfig
from modules.training.stages import Workspace

CONFIGS = Path(__file__).parent / "configs"
STAGES = ("prepare", "autoencoder", "latents", "diffusion", "export", "all")
ADAPTERS: Mapping[str, tuple[type[AdapterConfig], Callable[[Any, Workspace, Path], bool]]] = MappingProxyType({
    "lora": (LoraTraining, adapters.train_lora),
    "embedding": (EmbeddingTraining, adapters.train_embedding),
})
OUT_OF_TIME = 3

Config = TypeVar("Config", TrainingConfig, AdapterConfig)

logger = logging.getLogger(__name__)


def data_home() -> Path:
    """Return the folder for prepared data: in the user's data folder, not in the repository."""
    return Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "darkroom" / "training"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    main = argparse.ArgumentParser(prog="python -m modules.training", description=__doc__)
    main.add_argument("stage", choices=(*STAGES, *ADAPTERS))
    main.add_argument("--config", type=Path, help="configuration file; cpu.toml, or for an adapter that of ours")
    main.add_argument("--data-dir", type=Path, default=data_home(), help="where the prepared pictures are kept")
    main.add_argument("--pictures", type=Path, help="a folder of pictures with captions (.txt) for an adapter instead")
    main.add_argument("--run-dir", type=Path, default=Path("training-run"), help="checkpoints, grids, latents")
    main.add_argument("--output", type=Path, help="the folder that export writes, or the file of an adapter")
    main.add_argument("--start-from", type=Path, help="an exported model to go on from, without its checkpoints")
    main.add_argument("--model", type=Path, dest="start_from", help="the diffusers folder that an adapter is for")
    main.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main.add_argument("--steps", type=int, help="instead of the configuration's (all: of diffusion)")
    main.add_argument("--seconds", type=float, default=float("inf"), help="stop (resumably) after this time")
    return main


def with_steps(config: Config, stage: str, steps: int | None) -> Config:
    """Return the configuration with another number of steps, where given, for ``stage`` (autoencoder or diffusion)."""
    if steps is None:
        return config
    part = getattr(config, stage)
    return replace(config, **{stage: replace(part, loop=replace(part.loop, steps=steps))})


def perform(stage: str, config: TrainingConfig, space: Workspace, output: Path) -> bool:
    """Run one stage of a model; return whether all its steps are done."""
    done = True
    if stage == "prepare":
        count = dataset.prepare(space.archive, config.data.size, config.data.quality)
        logger.info("%d pictures in %s", count, space.archive)
    elif stage == "autoencoder":
        done = stages.train_autoencoder(config, space)
    elif stage == "latents":
        stages.cache_latents(config, space)
    elif stage == "diffusion":
        done = stages.train_diffusion(config, space)
    elif stage == "export":
        for path in export.export(config, space, output):
            logger.info("%9d  %s", path.stat().st_size, path)
    else:
        done = export.run_all(config, space, output)
    return done


def workspace(options: argparse.Namespace, size: int) -> Workspace:
    """Return where a run with pictures of ``size`` reads and writes."""
    archive = options.pictures or options.data_dir / f"emoji-{size}.zip"
    return Workspace(archive, options.run_dir, torch.device(options.device), options.seconds, options.start_from)


def run(options: argparse.Namespace) -> bool:
    """Run what the command line names; return whether all its steps are done."""
    stage = options.stage
    if stage in ADAPTERS:
        kind, train = ADAPTERS[stage]
        own = configuration.read(options.config or CONFIGS / f"{stage}.toml", kind)
        own = with_steps(own, "diffusion", options.steps)
        return train(own, workspace(options, own.data.size), options.output or Path(f"{stage}.safetensors"))
    config = configuration.read(options.config or CONFIGS / "cpu.toml", TrainingConfig)
    config = with_steps(config, "autoencoder" if stage == "autoencoder" else "diffusion", options.steps)
    return perform(stage, config, workspace(options, config.data.size), options.output or Path("starter"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 after an error, 3 when the time ran out before the steps did."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        return 0 if run(options) else OUT_OF_TIME
    except DarkroomError as error:
        logger.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
