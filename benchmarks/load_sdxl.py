"""Memory and time of loading a full-size SDXL file (seeded, float16, 6.9 GB), and of one call of each network.

    venv/bin/python benchmarks/load_sdxl.py [--held cast|float32|bfloat16] [--side 32] [--file FILE]

Prints one JSON object, as ``load_sd15.py`` does. The file is written tensor by tensor, so that writing takes no memory
to speak of.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load_sd15 import PLACEMENTS, anonymous, peak_of
from modules.core.settings import Settings
from modules.families import detect
from modules.families.base import ModelInput
from modules.library.headers import read_header
from modules.runtime.device import choose
from modules.runtime.device import detect as detect_device

ITEM_BYTES = 2


def write_model(path: Path) -> None:
    """Write the file with random weights that keep activations in range; norms of one, no biases."""
    from tests.fixtures.tiny_sdxl import FULL, sdxl_shapes

    shapes, offset, header = sdxl_shapes(FULL), 0, {}
    for name, shape in shapes.items():
        size = math.prod(shape) * ITEM_BYTES
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    generator = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            file.write(_weight(name, shape, generator).half().numpy().tobytes())


def _weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) > 1:
        scale = 0.02 if "embedding" in name else math.prod(shape[1:]) ** -0.5
        return torch.randn(shape, generator=generator).mul_(scale)
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)


def measure(path: Path, held: str, side: int) -> dict[str, Any]:
    """Load the file in this process and run each network once."""
    # Imports all that loading needs, which belongs to the idle process.
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: F401
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: F401
    from transformers.models.clip.modeling_clip import CLIPTextModel  # noqa: F401

    placement = PLACEMENTS[held] if held else choose(detect_device({}), {})
    idle, size = anonymous(), path.stat().st_size
    family, variant = detect(read_header(path))
    model, peak, load_seconds = peak_of(lambda: family.load(variant, str(path), None, placement))
    loaded = anonymous()
    texts, encode_peak, encode_seconds = peak_of(lambda: family.encode(model, ["a cat", "blurry"], Settings()))
    pixels = side * variant.latent.factor
    numbers = family.micro_conditioning(model, "cond", pixels, pixels, Settings())
    x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    inputs = ModelInput(
        x, 1.0, 500.0, 0, torch.stack([item.context for item in texts]), ("cond", "uncond"), (0, 0),
        pooled=torch.stack([item.pooled for item in texts if item.pooled is not None]),
        added={"micro": torch.tensor([numbers, numbers])},
    )
    output, call_peak, call_seconds = peak_of(lambda: family.call(model, inputs))
    picture, decode_peak, decode_seconds = peak_of(lambda: family.decode(model, x[:1]))
    return {
        "held": held, "pixels": pixels, "file_bytes": size, "idle_bytes": idle, "threads": torch.get_num_threads(),
        "anonymous_peak_share": round((peak - idle) / size, 3),
        "anonymous_loaded_share": round((loaded - idle) / size, 3),
        "load_seconds": round(load_seconds, 2), "encode_seconds": round(encode_seconds, 2),
        "encode_peak_bytes": encode_peak - loaded,
        "call_seconds": round(call_seconds, 2), "call_peak_bytes": call_peak - loaded,
        "decode_seconds": round(decode_seconds, 2), "decode_peak_bytes": decode_peak - loaded,
        "finite": bool(output.isfinite().all() and picture.isfinite().all()),
        "output_std": round(float(output.float().std()), 4),
    }


def main() -> None:
    """Read the options, write the file unless one is given, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held", choices=("", *PLACEMENTS), default="")
    parser.add_argument("--side", type=int, default=32, help="of the latent, an eighth of the picture's")
    parser.add_argument("--file", type=Path, help="measure this file instead; written there if it is missing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "sdxl.safetensors"
        if not path.exists():
            write_model(path)
        print(json.dumps(measure(path, options.held, options.side), indent=1))


if __name__ == "__main__":
    main()
