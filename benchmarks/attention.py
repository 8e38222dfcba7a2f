"""Every attention backend that works on this machine, on the shapes of standard models: time and error.

    venv/bin/python benchmarks/attention.py [--scale 1.0] [--only NAME ...]

Prints one JSON object a line: the shape, the backend, milliseconds of one call (events on an NVIDIA card, else the
clock), the largest error against float64 relative to the largest value, ``peak_mib`` beside the inputs (on a card),
and whether the program would choose it. ``--scale`` shrinks the number of tokens for slow machines.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.runtime.attention_backends import AttentionBackend, backends, shape_class, usable
from modules.runtime.attention_choice import cuda_seconds, open_attention, seconds
from modules.runtime.device import available, choose
from modules.runtime.device import detect as detect_device

# Rows with guidance, heads, queries, keys, head width.
SHAPES = {
    "SD 1.5, 512, self": (2, 8, 4096, 4096, 40),
    "SD 1.5, 512, text": (2, 8, 4096, 77, 40),
    "SD 1.5, 512, inner self": (2, 8, 256, 256, 160),
    "SDXL, 1024, self": (2, 10, 4096, 4096, 64),
    "SDXL, 1024, inner self": (2, 20, 1024, 1024, 64),
    "SDXL, 1024, text": (2, 20, 1024, 77, 64),
    "VAE, 1024": (1, 1, 16384, 16384, 512),
}


def draw(shape: Sequence[int], scale: float, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    rows, heads, queries, keys, width = shape
    counts = [max(1, int(count * scale)) if count > 77 else count for count in (queries, keys, keys)]
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(rows, heads, count, width, generator=generator).to(device, dtype) for count in counts)


def error(output: torch.Tensor, tensors: Sequence[torch.Tensor]) -> float:
    """Compare the first head with plain attention in float64, in rows that fit in memory."""
    q, k, v = (tensor[:1, :1].double() for tensor in tensors)
    worst = largest = 0.0
    for start in range(0, q.shape[-2], 512):
        part = slice(start, start + 512)
        exact = ((q[..., part, :] @ k.mT) * q.shape[-1] ** -0.5).softmax(-1) @ v
        worst = max(worst, float((output[:1, :1, part].double() - exact).abs().max()))
        largest = max(largest, float(exact.abs().max()))
    return worst / largest


def measure(backend: AttentionBackend, tensors: tuple[torch.Tensor, ...], on_card: bool) -> dict[str, object]:
    device = tensors[0].device
    core = backend.bind(available(device))
    if on_card:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    try:
        output = core(*tensors)
    except Exception as problem:  # noqa: BLE001 - a backend that fails is a line of the table
        return {"failed": str(problem).splitlines()[0] if str(problem) else type(problem).__name__}
    peak = {"peak_mib": round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)} if on_card else {}
    timer = {"cuda": cuda_seconds, "cpu": clock}.get(device.type, seconds)
    taken = timer(lambda: core(*tensors))
    return {"ms": round(taken * 1000, 4), "error": float(f"{error(output, tensors):.2e}"), **peak}


def clock(run: Callable[[], object]) -> float:
    """Return the processor seconds of one call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    info = detect_device({})
    placement = choose(info, {})
    on_card = placement.device.type == "cuda"
    chooser = open_attention(info.kind, info.capability, {}, lambda: available(placement.device))
    with torch.inference_mode():
        for name, shape in SHAPES.items():
            dtype = placement.vae if name.startswith("VAE") else placement.denoiser
            tensors = draw(shape, arguments.scale, placement.device, dtype)
            chooser.core(*tensors)
            chosen = chooser.chosen(*tensors[:2])
            for backend in backends({}):
                wanted = not arguments.only or backend.name in arguments.only
                if wanted and usable(backend, info.kind, info.capability) and backend.suits(shape_class(*tensors[:2])):
                    result = measure(backend, tensors, on_card)
                    print(json.dumps({"shape": name, "backend": backend.name, **result,
                                      "chosen": backend.name == chosen}), flush=True)


if __name__ == "__main__":
    main()
