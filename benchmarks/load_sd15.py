"""Memory and time of loading a full-size Stable Diffusion 1.5 file (seeded, float16), and of one call of each network.

    venv/bin/python benchmarks/load_sd15.py [--held cast|float32|bfloat16] [--layout safetensors|ckpt] [--side 64]
        [--file FILE]

Prints one JSON object. Times are in seconds of processor time, which other programs on the machine disturb least.
``anonymous_peak_share`` is the peak of anonymous memory while loading, above that of the idle process with everything
imported, over the size of the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.core.settings import Settings
from modules.families import detect, ldm
from modules.families.base import ModelInput
from modules.library.headers import read_header
from modules.runtime.device import Placement, choose
from modules.runtime.device import detect as detect_device

CLIP = "cond_stage_model.transformer.text_model."


def full_size_shapes() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the standard single file, from the model classes on the meta device."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )
        clip = CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        ))
    return {
        **_named(unet, ldm.UNET_PREFIX, ldm.unet_modules(unet.config)),
        **_named(vae, ldm.VAE_PREFIX, ldm.vae_modules(vae.config)),
        **_named(clip, CLIP, {}),
    }


def _named(module: Any, prefix: str, modules: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {prefix + ldm.rename(name, modules): tuple(value.shape) for name, value in module.state_dict().items()}


def write_model(path: Path, layout: str) -> None:
    """Write the file with random weights that keep activations in range."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in full_size_shapes().items():
        fan_in = max(1, torch.Size(shape[1:]).numel())
        drawn = torch.randn(shape, generator=generator).div_(fan_in**0.5).half()
        tensors[name] = torch.ones(shape, dtype=torch.float16) if "norm" in name and name.endswith("weight") else drawn
    if layout == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)


def anonymous() -> int:
    """Return the process's anonymous resident bytes."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Anonymous:"))


def peak_of(work: Callable[[], Any]) -> tuple[Any, int, float]:
    """Return what ``work`` returns, the peak of anonymous memory during it, and its seconds of processor time."""
    done, peak = threading.Event(), [anonymous()]

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.process_time()
    try:
        result = work()
    finally:
        seconds = time.process_time() - start
        done.set()
        thread.join()
    return result, max(peak[0], anonymous()), seconds


PLACEMENTS = {
    "cast": Placement(),
    "float32": Placement(cast_above=1 << 62),
    "bfloat16": Placement(denoiser=torch.bfloat16),
}


def measure(path: Path, held: str, side: int) -> dict[str, Any]:
    """Load the file in this process and run each network once."""
    full_size_shapes()  # imports all that loading needs, which belongs to the idle process
    placement = PLACEMENTS[held] if held else choose(detect_device({}), {})
    idle = anonymous()
    family, variant = detect(read_header(path))
    model, peak, load_seconds = peak_of(lambda: family.load(variant, str(path), None, placement))
    loaded = anonymous()
    conditioning, _, encode_seconds = peak_of(lambda: family.encode(model, ["a photo of a cat", ""], Settings()))
    x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    context = torch.stack([item.context for item in conditioning])
    inputs = ModelInput(x, 1.0, 500.0, 0, context, ("cond", "uncond"), (0, 0))
    family.call(model, inputs)
    output, call_peak, call_seconds = peak_of(lambda: family.call(model, inputs))
    pixels, decode_peak, decode_seconds = peak_of(lambda: family.decode(model, x[:1]))
    size = path.stat().st_size
    return {
        "held": held, "side": side, "file_bytes": size, "idle_bytes": idle, "threads": torch.get_num_threads(),
        "anonymous_peak_share": round((peak - idle) / size, 3),
        "anonymous_loaded_share": round((loaded - idle) / size, 3),
        "load_seconds": round(load_seconds, 2), "encode_seconds": round(encode_seconds, 2),
        "call_seconds": round(call_seconds, 2), "call_peak_bytes": call_peak - loaded,
        "decode_seconds": round(decode_seconds, 2), "decode_peak_bytes": decode_peak - loaded,
        "finite": bool(output.isfinite().all() and pixels.isfinite().all()),
        "output_std": round(float(output.float().std()), 4),
    }


def main() -> None:
    """Read the options, write the file unless one is given, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", choices=("", *PLACEMENTS), default="")
    parser.add_argument("--layout", choices=("safetensors", "ckpt"), default="safetensors")
    parser.add_argument("--side", type=int, default=64, help="of the latent, an eighth of the picture's")
    parser.add_argument("--file", type=Path, help="measure this file instead; written there if it is missing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / f"sd15.{options.layout}"
        if not path.exists():
            # Written by a process of its own, so that its memory is not counted.
            import multiprocessing

            writer = multiprocessing.get_context("spawn").Process(target=write_model, args=(path, options.layout))
            writer.start()
            writer.join()
        print(json.dumps(measure(path, options.held, options.side), indent=1))


if __name__ == "__main__":
    main()
