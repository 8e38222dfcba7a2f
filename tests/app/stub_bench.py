"""A workbench without a model, for a real worker process; what it does is written in the prompt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from modules.app.plots import perform
from modules.app.workbench import WorkerConfig
from modules.core import codec
from modules.core.errors import InvalidModel, Skipped
from modules.core.plan import ModelRef
from modules.core.plot import KIND, Plot
from modules.core.request import Request
from modules.core.result import FinishedPicture, Outcome, Watch
from modules.core.task import Task
from modules.library.hashes import HashCache


@dataclass
class StubBench:
    """Calls ``watch`` as the engine does; ``kill-<n>`` dies before picture n, once; ``slow`` takes 20 ms a step."""

    folder: Path
    device: str = "stub"
    model: str = ""
    log: list[str] = field(default_factory=list)

    def generate(self, request: Request, watch: Watch, done: frozenset[int]) -> Outcome:
        watch.phase("Loading the model")
        if "boom" in request.prompt:
            raise ValueError("boom")
        if "invalid" in request.prompt:
            raise InvalidModel("The model is broken.", "Take another.")
        if "hungry" in request.prompt:
            raise MemoryError
        count = request.batch_size * request.batch_count
        for first in range(0, count, request.batch_size):
            batch = [index for index in range(first, min(count, first + request.batch_size)) if index not in done]
            if not batch:
                continue
            if watch.stopping():
                break
            watch.check()
            watch.batch(first, min(count - first, request.batch_size))
            try:
                self._sample(request, watch, first)
            except Skipped:
                continue
            for index in batch:
                watch.picture(self._picture(request, index))
        return Outcome(not watch.stopping(), ("a warning",) if "warn" in request.prompt else ())

    def perform(self, task: Task, watch: Watch, done: frozenset[int]) -> Outcome:
        """Make a picture for each of the task's ``colours`` and say how many there are; draw a plot as it is."""
        if task.task == KIND:
            return perform(codec.decode(Plot, task.values), watch, done)
        for index, colour in enumerate(task.values["colours"]):
            if index in done:
                continue
            watch.check()
            watch.batch(index, 1)
            image = Image.new("RGB", (16, 24), colour)
            watch.step(1, 1)
            watch.picture(FinishedPicture(index, image, "a prompt", "", 7, 8, ModelRef(""),
                                          {"Postprocess": "yes", "Steps": "1", "Seed": "7"}, basename=colour))
        return Outcome(result={"colours": len(task.values["colours"])})

    def _sample(self, request: Request, watch: Watch, first: int) -> None:
        marker = self.folder / "killed"
        if f"kill-{first}" in request.prompt and not marker.exists():
            marker.write_text("")
            # What is finished is on disk by then; a thread of its own writes it.
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        for step in range(request.steps):
            watch.check()
            self.log.append(f"{first}:{step}")
            if "slow" in request.prompt:
                time.sleep(0.02)
            watch.step(step + 1, request.steps)
            if watch.wants_preview():
                watch.preview(Image.new("RGB", (1024, 512), (200, 100, 50)))

    def _picture(self, request: Request, index: int) -> FinishedPicture:
        seed = request.seed + index
        parameters = {"Steps": str(request.steps), "Seed": str(seed), "Size": f"{request.width}x{request.height}",
                      "Model hash": "", "Model": "stub"}
        image = Image.new("RGB", (request.width, request.height), (seed % 256, index % 256, 7))
        return FinishedPicture(index, image, request.prompt, request.negative_prompt, seed, request.subseed,
                               ModelRef(self.model), parameters)

    def files(self, request: Request) -> tuple[str, ...]:
        return (self.model,)

    def unload(self) -> None:
        (self.folder / "unloaded").write_text("")

    def memory(self) -> Mapping[str, Any]:
        return {"ram": {"free": 10, "used": 20, "total": 30}, "cuda": {}}

    def close(self) -> None:
        (self.folder / "closed").write_text("")


def open_stub(config: WorkerConfig, hashes: HashCache) -> StubBench:
    """Open the stub; its model is any file of the data folder."""
    places = config.folders()
    model = places.data_dir / "model.bin"
    model.write_bytes(b"weights")
    return StubBench(places.data_dir, model=str(model))


def open_broken(config: WorkerConfig, hashes: HashCache) -> StubBench:
    """Fail as an engine does whose libraries are missing."""
    raise ImportError("libnothing.so.1 is missing")
