"""What a picture costs beside its networks: the share of time outside UNet, VAE and text encoder.

    python -m benchmarks.overhead [--repetitions 5]

20 steps of Euler at 256x256 with guidance, on a seeded Stable Diffusion 1 of UNet widths (64, 128, 256, 256): through
the engine in this process, and as a whole job (queue, engine's process, saving) through the App. Prints one JSON object
and a line for people; ends with status 1 where more than 5 % of either are spent elsewhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.app.app import App, assemble
from modules.app.engine_client import EngineClient
from modules.app.settings import SettingsStore
from modules.app.workbench import EngineBench, WorkerConfig, open_engine, open_host
from modules.core.request import Request
from modules.core.result import FinishedPicture, Outcome, Watch
from modules.launcher.flags import Flags
from modules.library.files import Library, folders
from modules.library.hashes import HashCache

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
LARGEST_SHARE = 0.05
UNET_WIDTHS, VAE_WIDTHS, CONTEXT = (64, 128, 256, 256), (32, 64, 128, 128), 128
REQUEST = Request(prompt="a cat on a chair", negative_prompt="blurry", seed=1, subseed=1, width=256, height=256,
                  steps=20, sampler="Euler", save_grid=False)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    # Threads that wait for one another on busy cores would be measured instead of the program.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_small_model(root / "models/Stable-diffusion/small.safetensors")
        results = {"engine": engine_runs(root, repetitions), "job": job_runs(root, repetitions)}
    passed = all(result["share"] <= LARGEST_SHARE for result in results.values())
    print(json.dumps({**results, "load": os.getloadavg()[0], "passed": passed}, indent=1))
    print("; ".join(f"{name}: {result['seconds']:.2f} s, {result['share']:.1%} outside the networks "
                    f"({result['least']:.1%} to {result['most']:.1%})" for name, result in results.items())
          + f"; at most {LARGEST_SHARE:.0%}")
    return 0 if passed else 1


def write_small_model(path: Path) -> None:
    """Write the model: matrices that keep variance, norms of one, no biases."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    tensors = {name: weight(name, shape, generator) for name, shape in small_shapes()}
    path.parent.mkdir(parents=True)
    save_file(tensors, path)


def small_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the single file."""
    from tests.fixtures.tiny_models import clip_shapes, unet_shapes, vae_shapes

    parts = {"model.diffusion_model.": unet_shapes(UNET_WIDTHS, CONTEXT, 2),
             "cond_stage_model.transformer.text_model.": clip_shapes(CONTEXT, 4),
             "first_stage_model.": vae_shapes(VAE_WIDTHS)}
    return ((prefix + name, shape) for prefix, shapes in parts.items() for name, shape in shapes)


def weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return one seeded tensor."""
    import torch

    if len(shape) > 1:
        return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)


class NetworkClock:
    """Adds up the seconds inside the networks of loaded models."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0
        self._known: set[int] = set()

    def watch(self, networks: Mapping[str, Any]) -> None:
        """Time ``networks`` from now on, each once; of the VAE, its decoder."""
        for name, network in networks.items():
            module = network.decoder if name == "vae" else network
            if id(module) not in self._known:
                self._known.add(id(module))
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def _enter(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def _leave(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._started


class Unwatched:
    """A ``Watch`` for nobody: nothing is shown or saved."""

    def check(self) -> None: ...
    def phase(self, text: str) -> None: ...
    def batch(self, first: int, pictures: int) -> None: ...
    def step(self, done: float, total: int) -> None: ...
    def preview(self, image: Any) -> None: ...
    def picture(self, picture: FinishedPicture) -> None: ...

    def stopping(self) -> bool:
        return False

    def wants_preview(self) -> bool:
        return False


def engine_runs(root: Path, repetitions: int) -> dict[str, float]:
    """Return the figures of the engine alone; a first run, which loads, does not count."""
    from modules.engine.engine import Engine
    from modules.runtime.device import Placement
    from modules.runtime.memory import Models

    models, clock = Models(2**40), NetworkClock()
    engine = Engine(Library(folders(root, {}), HashCache(root / "hashes.sqlite3")), models, Placement())
    engine.generate(REQUEST, (), Unwatched())
    watch_models(models, clock)
    runs = []
    for seed in range(repetitions):
        before, started = clock.seconds, time.perf_counter()
        engine.generate(dataclasses.replace(REQUEST, seed=seed), (), Unwatched())
        runs.append((time.perf_counter() - started, clock.seconds - before))
    engine.unload()
    return figures(runs)


def job_runs(root: Path, repetitions: int) -> dict[str, float]:
    """Return the figures of whole jobs, from the request to the picture in its row."""
    flags = Flags(data_dir=str(root))
    config = WorkerConfig(str(ROOT), dataclasses.asdict(flags), engine="benchmarks.overhead:open_timed_engine")
    places = config.folders()
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    app = assemble(library, SettingsStore(places.config), open_host(config), EngineClient(config), flags)
    app.start()
    try:
        finished_job(app, 0)
        return figures([finished_job(app, seed) for seed in range(1, repetitions + 1)])
    finally:
        app.close()


def finished_job(app: App, seed: int) -> tuple[float, float]:
    """Run one job on the small model; return its seconds and those inside the networks."""
    started = time.perf_counter()
    job = app.wait(app.submit(dataclasses.replace(REQUEST, seed=seed, model="small")).id)
    seconds = time.perf_counter() - started
    if job.failure is not None:
        raise RuntimeError(job.failure.message)
    return seconds, float(job.warnings[-1])


class TimedBench(EngineBench):
    """The real engine's bench; says how long the networks took, as the last warning of a job."""

    clock = NetworkClock()

    def generate(self, request: Request, watch: Watch, done: frozenset[int]) -> Outcome:
        """Make the pictures; networks are timed from the job after the one that loads them."""
        watch_models(self.tools.models, self.clock)
        before = self.clock.seconds
        outcome = super().generate(request, watch, done)
        return dataclasses.replace(outcome, warnings=(*outcome.warnings, repr(self.clock.seconds - before)))


def open_timed_engine(config: WorkerConfig, hashes: HashCache) -> TimedBench:
    """Open the real engine inside its own process, with a clock on its networks."""
    bench = open_engine(config, hashes)
    assert isinstance(bench, EngineBench)
    return TimedBench(**{item.name: getattr(bench, item.name) for item in dataclasses.fields(bench)})


def watch_models(models: Any, clock: NetworkClock) -> None:
    """Time the networks of every model that is held."""
    for key in models.keys():  # noqa: SIM118 - Models is no mapping
        clock.watch(models.get(key, lambda: None).modules)


def figures(runs: list[tuple[float, float]]) -> dict[str, float]:
    """Return medians of ``runs`` (seconds, seconds inside the networks), and the spread of the share outside."""
    shares = [1 - inside / seconds for seconds, inside in runs]
    return {"seconds": statistics.median(seconds for seconds, _ in runs),
            "outside": statistics.median(seconds - inside for seconds, inside in runs),
            "share": statistics.median(shares), "least": min(shares), "most": max(shares)}


if __name__ == "__main__":
    sys.exit(main())
