"""Measures what the starter's LoRA and embedding change about the pictures of fixed prompts; prints JSON.

The files are read by diffusers and PEFT, not by our extensions: what others make of them.

    python benchmarks/adapters.py --sheet docs/starter/adapters.png
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.starter import draw
from modules.training.compose import LUMA
from modules.training.evaluation import off_palette
from modules.training.grids import save_grid
from modules.training.styles import BLUEPRINT, SAFELIGHT

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models/Stable-diffusion/darkroom-starter"
LORA = ROOT / "models/Lora/darkroom-starter/safelight.safetensors"
EMBEDDING = ROOT / "embeddings/darkroom-starter/starter-blueprint.safetensors"
PROMPTS = Path(__file__).with_name("adapters_prompts.txt")
WEIGHTS = (0.0, 0.5, 1.0)
SHOWN = 8


def pictures(prompts: Sequence[str], options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Return the pictures [n, 3, 128, 128] of the prompts as they are, with the embedding, and with the LoRA."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32).to(options.device)
    drawn = {"plain": draw(pipeline, prompts, options)}
    pipeline.load_textual_inversion(str(EMBEDDING), token=EMBEDDING.stem)
    mentioned = pipeline.maybe_convert_prompt([f"{prompt}, {EMBEDDING.stem}" for prompt in prompts], pipeline.tokenizer)
    drawn[EMBEDDING.stem] = draw(pipeline, mentioned, options)
    pipeline.load_lora_weights(str(LORA), adapter_name=LORA.stem)
    for weight in WEIGHTS:
        pipeline.set_adapters([LORA.stem], [weight])
        drawn[f"{LORA.stem} {weight:g}"] = draw(pipeline, prompts, options)
    return drawn


def figures(pixels: torch.Tensor) -> dict[str, float]:
    """Return the means over pictures: distance from each style's colours, luma, saturation."""
    shown = (pixels.clamp(-1, 1) + 1) / 2
    most, least = shown.amax(1), shown.amin(1)
    found = {
        "off_safelight": off_palette(pixels, SAFELIGHT).mean(),
        "off_blueprint": off_palette(pixels, BLUEPRINT).mean(),
        "luma": (shown * torch.tensor(LUMA).view(3, 1, 1)).sum(1).mean(),
        "saturation": ((most - least) / most.clamp_min(1e-6)).mean(),
    }
    return {name: round(float(value), 2) for name, value in found.items()}


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Print the figures as JSON."""
    options = parse()
    prompts = PROMPTS.read_text("utf-8").splitlines()
    drawn = pictures(prompts, options)
    if options.sheet:
        rows = [found[:SHOWN] for name, found in drawn.items() if name != f"{LORA.stem} 0"]
        save_grid(torch.cat(rows), options.sheet, SHOWN)
    report = {name: figures(found) for name, found in drawn.items()}
    json.dump({"prompts": len(prompts), "steps": options.steps, **report}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
