"""One command per stage: python -m modules.training STAGE."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from modules.core.errors import DarkroomError
from modules.training import config as configuration
from modules.training import dataset, export, stages
from modules.training.config import TrainingConfig
from modules.training.stages import Workspace

CONFIGS = Path(__file__).parent / "configs"
STAGES = ("prepare", "autoencoder", "latents", "diffusion", "export", "all")
OUT_OF_TIME = 3

logger = logging.getLogger(__name__)


def data_home() -> Path:
    """Return the folder for prepared data: in the user's data folder, not in the repository."""
    return Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "darkroom" / "training"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    main = argparse.ArgumentParser(prog="python -m modules.training", description=__doc__)
    main.add_argument("stage", choices=STAGES)
    main.add_argument("--config", type=Path, default=CONFIGS / "cpu.toml", help="configuration file")
    main.add_argument("--data-dir", type=Path, default=data_home(), help="where the prepared pictures are kept")
    main.add_argument("--run-dir", type=Path, default=Path("training-run"), help="checkpoints, grids, latents")
    main.add_argument("--output", type=Path, default=Path("starter"), help="where export writes the model")
    main.add_argument("--start-from", type=Path, help="an exported model to go on from, without its checkpoints")
    main.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main.add_argument("--steps", type=int, help="instead of the configuration's (all: of diffusion)")
    main.add_argument("--seconds", type=float, default=float("inf"), help="stop (resumably) after this time")
    return main


def with_steps(config: TrainingConfig, stage: str, steps: int) -> TrainingConfig:
    """Return the configuration with another number of steps for ``stage`` (autoencoder or diffusion)."""
    part = getattr(config, stage)
    return replace(config, **{stage: replace(part, loop=replace(part.loop, steps=steps))})


def perform(stage: str, config: TrainingConfig, space: Workspace, output: Path) -> int:
    """Run one stage; return the exit code."""
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
    return 0 if done else OUT_OF_TIME


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 after an error, 3 when the time ran out before the steps did."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = configuration.read(options.config)
        if options.steps:
            config = with_steps(config, "autoencoder" if options.stage == "autoencoder" else "diffusion", options.steps)
        archive = options.data_dir / f"emoji-{config.data.size}.zip"
        space = Workspace(
            archive, options.run_dir, torch.device(options.device), options.seconds, options.start_from
        )
        return perform(options.stage, config, space, options.output)
    except DarkroomError as error:
        logger.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
