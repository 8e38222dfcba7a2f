"""``python -m modules.training STAGE``: one command per stage."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import torch

from modules.core.errors import DarkroomError
from modules.training import config as configuration
from modules.training import dataset
from modules.training.autoencoder import AutoencoderStage
from modules.training.config import TrainingConfig
from modules.training.loop import Limits, run

CONFIGS = Path(__file__).parent / "configs"


def data_home() -> Path:
    """Return the folder for prepared data: in the user's data folder, not in the repository."""
    return Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "darkroom" / "training"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    main = argparse.ArgumentParser(prog="python -m modules.training", description=__doc__)
    main.add_argument("stage", choices=("prepare", "autoencoder"))
    main.add_argument("--config", type=Path, default=CONFIGS / "cpu.toml", help="configuration file")
    main.add_argument("--data-dir", type=Path, default=data_home(), help="where the prepared pictures are kept")
    main.add_argument("--run-dir", type=Path, default=Path("training-run"), help="checkpoints, grids, the model")
    main.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main.add_argument("--seconds", type=float, default=float("inf"), help="stop (resumably) after this time")
    return main


def pictures(config: TrainingConfig, options: argparse.Namespace) -> tuple[dataset.Dataset, dataset.Dataset]:
    """Return the data sets for training and held out."""
    found = dataset.load(archive(config, options), config.data.groups, config.data.tones)
    train, held = dataset.split(found.entries, config.data.held_out)
    return found.select(train), found.select(held)


def archive(config: TrainingConfig, options: argparse.Namespace) -> Path:
    """Return the path of the prepared pictures."""
    path: Path = options.data_dir / f"emoji-{config.data.size}.zip"
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; return the exit code (3 when the time ran out before the steps did)."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    config = configuration.read(options.config)
    device = torch.device(options.device)
    try:
        if options.stage == "prepare":
            dataset.prepare(archive(config, options), config.data.size, config.data.quality)
            return 0
        train, held = pictures(config, options)
        folder = options.run_dir / "autoencoder"
        stage = AutoencoderStage(config.autoencoder, train, held, device, folder)
        return 0 if run(stage, config.autoencoder.loop, folder, Limits(options.seconds, folder / "stop")) else 3
    except DarkroomError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
