"""An engine on a tiny seeded model, and someone who watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import Interrupted, Skipped
from modules.core.request import Request
from modules.core.result import FinishedPicture
from modules.engine.engine import Engine
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.fixtures.tiny_models import write_tiny_sd1

REQUEST = Request(prompt="a cat", negative_prompt="a dog", seed=7, subseed=9, width=64, height=64, steps=4,
                  sampler="Euler")


@dataclass
class Recorder:
    """A ``Watch`` that writes everything down and can be told to interrupt or skip at a model call."""

    looking: bool = False
    interrupt_at: int = -1
    skip_at: int = -1
    stop_after: int = -1
    checks: int = 0
    pictures: list[FinishedPicture] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    previews: list[Any] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def check(self) -> None:
        if len(self.steps) == self.interrupt_at:
            raise Interrupted("stop")
        if len(self.steps) == self.skip_at and self.batches:
            self.skip_at = -1
            raise Skipped("skip")

    def stopping(self) -> bool:
        return len(self.batches) == self.stop_after

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def batch(self, first: int, pictures: int) -> None:
        self.batches.append((first, pictures))

    def step(self, done: float, total: int) -> None:
        self.steps.append(done / total)

    def wants_preview(self) -> bool:
        return self.looking

    def preview(self, image: Any) -> None:
        self.previews.append(image)

    def picture(self, picture: FinishedPicture) -> None:
        self.pictures.append(picture)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    root = tmp_path_factory.mktemp("installation")
    write_tiny_sd1(root / "models/Stable-diffusion/tiny.safetensors")
    return Library(folders(root, {}), HashCache(root / "hashes.sqlite3"))


@pytest.fixture(scope="session")
def engine(library: Library) -> Engine:
    return Engine(library, Models(10**9), Placement())


@pytest.fixture
def watch() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def checkpoint(library: Library) -> Path:
    return Path(library.checkpoints()[0].path)
