"""Judges a starter model: reconstruction, labels, held-out combinations, speed, and a contact sheet; prints JSON.

    python benchmarks/starter.py --model models/Stable-diffusion/darkroom-starter --sheet docs/starter/sheet.png
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).parents[1]))

from modules.training import config as configuration
from modules.training import dataset, evaluation, sample, stages, tokenizer
from modules.training.__main__ import CONFIGS, data_home
from modules.training.denoiser import Denoiser
from modules.training.evaluation import Question
from modules.training.grids import save_grid

PROMPTS = Path(__file__).with_name("starter_prompts.txt")


def draw(pipeline: Any, prompts: Sequence[str], options: argparse.Namespace, batch: int = 16) -> torch.Tensor:
    """Return one picture [3, h, w] in -1..1 per prompt, from seeds that depend on the position alone."""
    model = Denoiser(pipeline.unet, pipeline.text_encoder)
    ids = tokenizer.encode(pipeline.tokenizer, [*prompts, ""]).to(options.device)
    settings = {**pipeline.scheduler.config, "timestep_spacing": "trailing"}
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}
    source = torch.Generator().manual_seed(options.seed)
    pictures = []
    for part in ids[:-1].split(batch):
        latents = sample.draw_latents(model, part, ids[-1], settings, options.steps, options.guidance, source)
        pictures.append(sample.decode(pipeline.vae, latents).cpu())
    return torch.cat(pictures)


def judge(
    pipeline: Any, questions: list[Question], data: dataset.Dataset, options: argparse.Namespace
) -> dict[str, float]:
    """Return how often each part of the answers is right."""
    pictures = draw(pipeline, [question.prompt for question in questions], options)
    result = {
        "pictures": float(len(questions)),
        "ground": evaluation.share(evaluation.grounds(pictures), [question.ground for question in questions]),
    }
    if questions[0].colour:
        result["colour"] = evaluation.share(evaluation.colours(pictures), [q.colour for q in questions])
    else:
        result["label"] = evaluation.share(evaluation.nearest_labels(pictures, data), [q.label for q in questions])
    return result


def seconds(pipeline: Any, options: argparse.Namespace) -> float:
    """Return the wall time of one 20-step picture, guidance included, after one to warm up."""
    draw(pipeline, ["a cat"], options)
    start = time.perf_counter()
    draw(pipeline, ["a cat"], options)
    return time.perf_counter() - start


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIGS / "cpu.toml", help="what it was trained with")
    parser.add_argument("--data-dir", type=Path, default=data_home())
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--combinations", type=int, default=100)
    return parser.parse_args()


def main() -> None:
    """Print the figures as JSON."""
    options = parse()
    config = configuration.read(options.config, configuration.TrainingConfig)
    archive = options.data_dir / f"emoji-{config.data.size}.zip"
    pipeline = StableDiffusionPipeline.from_pretrained(options.model, dtype=torch.float32).to(options.device)
    found = dataset.load(archive, config.data.groups, config.data.tones)
    held = found.select(dataset.split(found.entries, config.data.held_out)[1])
    data = stages.subjects(config, archive)
    plain = evaluation.label_questions(data.entries, options.pictures)
    mixed = evaluation.combination_questions(data.entries, options.combinations, config.diffusion.captions.held_out)
    report = {
        "reconstruction_psnr_db": evaluation.reconstruction(pipeline.vae, held),
        "held_out_pictures": len(held.entries),
        "seconds_per_picture": seconds(pipeline, options),
        "labels": judge(pipeline, plain, data, options),
        "combinations": judge(pipeline, mixed, data, options),
        "bytes": sum(path.stat().st_size for path in options.model.rglob("*") if path.is_file()),
    }
    if options.sheet:
        prompts = PROMPTS.read_text("utf-8").splitlines()
        save_grid(draw(pipeline, prompts, options), options.sheet, 8)
    json.dump(report, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
