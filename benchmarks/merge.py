"""A weighted sum of two files against reading both and writing one; memory above what was there before.

    venv/bin/python -m benchmarks.merge [--megabytes 2000]

Files are seeded, of SDXL's largest tensors' shapes, float16. The hashes of the sources are not part of it: they are
known of every model that was ever used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import torch

from modules.library.tensors import TensorInfo
from modules.merging.methods import METHODS
from modules.merging.plan import Step
from modules.merging.tensors import open_stored
from modules.merging.values import pieces
from modules.merging.writer import HASH, write_safetensors

LIMIT, MEMORY_LIMIT = 2.0, 1.0
SHAPE = (10240, 1280)
CHUNK = 4 << 20


def main() -> int:
    """Print the figures; return 1 where a limit is passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=2000)
    count = max(1, parser.parse_args().megabytes * 10**6 // (2 * SHAPE[0] * SHAPE[1]))
    with tempfile.TemporaryDirectory() as folder:
        a, b, c = (Path(folder) / f"{name}.safetensors" for name in "abc")
        for seed, path in enumerate((a, b)):
            write(path, count, seed)
        copied = min(timed(lambda: copy(a, b, c)) for _ in range(2))
        peak = Peak()
        merged = min(timed(lambda: merge(a, b, c)) for _ in range(2))
        above = peak.stop()
    ratio = merged / copied
    print(json.dumps({"megabytes": count * 2 * SHAPE[0] * SHAPE[1] // 10**6, "copied_s": round(copied, 2),
                      "merged_s": round(merged, 2), "ratio": round(ratio, 2), "memory_above_gb": round(above, 3)}))
    return int(ratio > LIMIT or above > MEMORY_LIMIT)


class Peak:
    """The most resident memory since it was made, above that of then, in GB."""

    def __init__(self) -> None:
        self._process, self._ended = psutil.Process(), threading.Event()
        self._before = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self._most = max(self._most, self._process.memory_info().rss)

    def stop(self) -> float:
        """End and return the figure."""
        self._ended.set()
        self._thread.join()
        return (self._most - self._before) / 1e9


def write(path: Path, count: int, seed: int) -> None:
    """Write a file of ``count`` matrices."""
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).half()
    write_safetensors(path, [(f"model.{i}", TensorInfo("F16", SHAPE)) for i in range(count)], {},
                      (values for _ in range(count)))


def copy(a: Path, b: Path, target: Path) -> None:
    """Read both files, write one of their size."""
    buffer = bytearray(CHUNK)
    with a.open("rb", buffering=0) as one, b.open("rb", buffering=0) as other, target.open("wb", buffering=0) as out:
        while size := one.readinto(buffer):
            other.readinto(buffer)
            out.write(memoryview(buffer)[:size])
        os.fsync(out.fileno())


def merge(a: Path, b: Path, target: Path) -> None:
    """Merge both files as a job does."""
    method = METHODS["weighted_sum"]
    with ExitStack() as stack, torch.inference_mode():
        one, other = open_stored([a], stack), open_stored([b], stack)
        steps = [Step(name, stored.info, (stored, other[name]), 0.3) for name, stored in one.items()]
        write_safetensors(target, [(step.name, step.info) for step in steps], {HASH: ""},
                          (piece for step in steps for piece in pieces(step, method, (0.0, 1.0))))


def timed(action: object) -> float:
    """Return the seconds that ``action`` takes."""
    begun = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
