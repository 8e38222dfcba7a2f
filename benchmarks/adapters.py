"""Measures what the starter's LoRA and embedding change about the pictures of fixed prompts; prints JSON.

    python -m benchmarks.adapters --sheet docs/starter/adapters.png
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.overhead import Unwatched
from modules.core.request import Request

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = Path(__file__).with_name("adapters_prompts.txt")
FORMS: Mapping[str, str] = {
    "plain": "{}",
    "safelight 0": "{} <lora:safelight:0>",
    "safelight 0.5": "{} <lora:safelight:0.5>",
    "safelight 1": "{} <lora:safelight:1>",
    "starter-blueprint": "{}, starter-blueprint",
}
SHOWN = 8


class Collected(Unwatched):
    """A ``Watch`` that keeps the pictures."""

    def __init__(self) -> None:
        self.images: list[Any] = []

    def picture(self, picture: Any) -> None:
        self.images.append(picture.image.convert("RGB"))


def draw(prompts: Sequence[str], cache: Path, options: argparse.Namespace) -> dict[str, list[Any]]:
    """Return the pictures of each form of the prompts, with the same seed for the same prompt."""
    from modules.app.workbench import model_budget
    from modules.engine.engine import Engine
    from modules.host.discover import discover
    from modules.host.registry import Host
    from modules.library.files import Library, folders
    from modules.library.hashes import HashCache
    from modules.runtime.device import Placement
    from modules.runtime.memory import Models

    flags = {"lora_dir": str(options.lora_dir or ""), "embeddings_dir": str(options.embeddings_dir or "")}
    places = folders(ROOT, flags)
    found = discover([ROOT / "extensions"], cache, {"lora": places.lora, "embeddings": places.embeddings}, frozenset())
    host = Host(tuple(found))
    engine = Engine(Library(places, HashCache(cache / "hashes.sqlite3")), Models(model_budget(2**33)), Placement())
    drawn: dict[str, list[Any]] = {}
    for form, pattern in FORMS.items():
        watch = Collected()
        for number, prompt in enumerate(prompts):
            request = Request(prompt=pattern.format(prompt), model="darkroom-starter", seed=options.seed + number,
                              width=128, height=128, steps=options.steps, sampler="DDIM",
                              guidance_scale=options.guidance)
            result = engine.generate(request, host.active(request), watch)
            if result.warnings:
                raise SystemExit("\n".join(result.warnings))
        drawn[form] = watch.images
        print(f"{form}: {len(watch.images)} pictures", file=sys.stderr)
    return drawn


def figures(drawn: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, float]]:
    """Return the means over each form's pictures: distance from each style's colours, luma, saturation."""
    import numpy
    import torch

    from modules.training.compose import LUMA
    from modules.training.evaluation import off_palette
    from modules.training.styles import BLUEPRINT, SAFELIGHT

    found = {}
    for form, images in drawn.items():
        pixels = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
        most, least = pixels.amax(1) + 1, pixels.amin(1) + 1
        found[form] = {
            "off_safelight": float(off_palette(pixels, SAFELIGHT).mean()),
            "off_blueprint": float(off_palette(pixels, BLUEPRINT).mean()),
            "luma": float(((pixels + 1) / 2 * torch.tensor(LUMA).view(3, 1, 1)).sum(1).mean()),
            "saturation": float(((most - least) / most.clamp_min(1e-6)).mean()),
        }
        found[form] = {name: round(value, 3) for name, value in found[form].items()}
    return found


def sheet(drawn: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write the first pictures of each form that changes something, a row each."""
    from PIL import Image

    rows = [images[:SHOWN] for form, images in drawn.items() if form != "safelight 0"]
    width, height = rows[0][0].size
    page = Image.new("RGB", (SHOWN * (width + 2) + 2, len(rows) * (height + 2) + 2), (128, 128, 128))
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            page.paste(image, (2 + column * (width + 2), 2 + row * (height + 2)))
    page.save(path, optimize=True)


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--lora-dir", type=Path, help="where safelight.safetensors lies, in place of the shipped one")
    parser.add_argument("--embeddings-dir", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=24)
    return parser.parse_args()


def main() -> None:
    """Print the figures as JSON."""
    options = parse()
    prompts = PROMPTS.read_text("utf-8").splitlines()[: options.pictures]
    with tempfile.TemporaryDirectory() as cache:
        drawn = draw(prompts, Path(cache), options)
    pairs = zip(drawn["plain"], drawn["safelight 0"], strict=True)
    same = all(one.tobytes() == other.tobytes() for one, other in pairs)
    if options.sheet:
        sheet(drawn, options.sheet)
    json.dump({"pictures": len(prompts), "weight_0_is_bit_equal": same, **figures(drawn)}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
