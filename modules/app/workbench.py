"""The engine as the worker sees it; everything that imports torch is imported in ``open_engine`` and not before."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from modules.app.tasks import Tools, find_task
from modules.core.request import Request
from modules.core.result import Outcome, Watch
from modules.core.task import Task
from modules.host.discover import discover
from modules.host.registry import Host
from modules.imaging.resize import RESAMPLERS
from modules.library.files import Folders, Library, folders
from modules.library.hashes import HashCache

ENGINE = "modules.app.workbench:open_engine"


@dataclass(frozen=True)
class WorkerConfig:
    """What an engine's process is started with; plain values only.

    ``flags`` are the command line's, by name; ``engine`` names the function that opens the engine
    (``module:function``); ``log`` is the file for what the process has to say.
    """

    root: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()
    engine: str = ENGINE
    log: str = ""

    def folders(self) -> Folders:
        """Return the folders that root and flags name."""
        return folders(Path(self.root), {name: value for name, value in self.flags.items() if isinstance(value, str)})


class Workbench(Protocol):
    """Whatever makes pictures inside the engine's process."""

    @property
    def device(self) -> str:
        """The device in words."""

    def generate(self, request: Request, watch: Watch, done: frozenset[int]) -> Outcome:
        """Make the pictures of ``request`` but those whose index is in ``done``; raises ``Interrupted`` if asked."""

    def perform(self, task: Task, watch: Watch, done: frozenset[int]) -> Outcome:
        """Do ``task``, but for the pictures whose index is in ``done``; raises ``Interrupted`` if asked."""

    def files(self, request: Request) -> tuple[str, ...]:
        """Return the paths of the model files that the infotext will want a hash of."""

    def unload(self) -> None:
        """Free every model."""

    def memory(self) -> Mapping[str, Any]:
        """Return memory readings in bytes."""

    def close(self) -> None:
        """The process is about to end."""


def open_workbench(config: WorkerConfig, hashes: HashCache) -> Workbench:
    """Import and open the engine that ``config`` names."""
    module, _, function = config.engine.partition(":")
    opener: Callable[[WorkerConfig, HashCache], Any] = getattr(importlib.import_module(module), function)
    return cast(Workbench, opener(config, hashes))


def open_host(config: WorkerConfig) -> Host:
    """Return the plugins in the extensions' folders, but for those that settings or flags turn off."""
    places = config.folders()
    if config.flags.get("disable_all_extensions"):
        return Host(())
    directories = places.extensions
    if config.flags.get("disable_extra_extensions"):
        directories = (places.root / "extensions",)
    kinds = {"lora": places.lora, "embeddings": places.embeddings, "controlnet": places.controlnet,
             "hypernetworks": places.hypernetworks, "esrgan": places.esrgan, "wildcards": places.wildcards}
    return Host(discover(directories, places.data_dir, kinds, frozenset(config.disabled)))


def open_engine(config: WorkerConfig, hashes: HashCache) -> Workbench:
    """Open the real engine; takes seconds, most of them for importing torch."""
    from modules.engine.engine import Engine
    from modules.merging.preview import Previews
    from modules.runtime import device, memory
    from modules.runtime.memory import Models
    from modules.upscaling.faces.networks import FaceShelf
    from modules.upscaling.faces.restorer import find_restorer
    from modules.upscaling.registry import Upscalers
    from modules.upscaling.upscaler import Shelf

    places = config.folders()
    info = device.detect(config.flags)
    device.configure(config.flags)
    placement = device.with_attention(device.choose(info, config.flags), info, config.flags)
    library = Library(places, hashes)
    models = Models(model_budget(device.ram()["total"]), memory.accelerator(placement, info, config.flags))
    host = open_host(config)
    upscalers = Upscalers(library, Shelf(models, placement), {**RESAMPLERS, **host.upscalers()})
    restorer = partial(find_restorer, library, FaceShelf(models, placement))
    engine = Engine(library, models, placement, upscalers, host.samplers(), restorer, Previews(library))
    return EngineBench(info.name or info.kind, Tools(library, host, engine, models, upscalers, restorer),
                       lambda: device.memory(placement.device))


def others(request: Request) -> tuple[str, ...]:
    """Return the names of the checkpoints that take part beside the first."""
    hires = request.hr_checkpoint if request.enable_hr else ""
    return tuple(name for name in (hires, request.refiner) if name)


def model_budget(memory: int) -> int:
    """Return how many of ``memory`` bytes of main memory loaded models may keep: half, so that work has room."""
    return memory // 2


@dataclass(frozen=True)
class EngineBench:
    """The real engine with its plugins."""

    device: str
    tools: Tools
    read_memory: Callable[[], Mapping[str, Any]]

    def generate(self, request: Request, watch: Watch, done: frozenset[int]) -> Outcome:
        """Make the pictures of ``request`` but those in ``done``."""
        active = self.tools.host.active(request)
        result = self.tools.engine.generate(request, active, watch, done)
        all_made = result.count + len(done) >= request.batch_size * request.batch_count
        return Outcome(all_made or not watch.stopping(), result.warnings)

    def perform(self, task: Task, watch: Watch, done: frozenset[int]) -> Outcome:
        """Do ``task`` but for the pictures in ``done``."""
        return find_task(task.task)(task, self.tools, watch, done)

    def files(self, request: Request) -> tuple[str, ...]:
        """Return the paths of checkpoints and VAE."""
        settings, library = request.settings, self.tools.library
        checkpoint = library.find_checkpoint(request.model)
        vae = library.find_vae(request.vae or settings.sd_vae, checkpoint)
        wanted = (checkpoint if settings.add_model_hash_to_info and request.merge is None else None,
                  vae if settings.add_vae_hash_to_info else None,
                  *(library.find_checkpoint(name) for name in others(request)))
        return tuple(file.path for file in wanted if file is not None)

    def unload(self) -> None:
        """Free every model."""
        self.tools.engine.unload()

    def memory(self) -> Mapping[str, Any]:
        """Return memory readings in bytes."""
        return self.read_memory()

    def close(self) -> None:
        """Tell every plugin that the process ends."""
        self.tools.host.close()
