"""A merge tried out on a loaded model: its weights as patches, before anything is written.

Each parameter's value comes through the family's own map from a file's tensors to its networks, as it would from the
merge saved and loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.core.merge import DIFFUSERS, SAFETENSORS, Recipe
from modules.core.plan import ModelRef
from modules.core.result import Watch
from modules.families import checkpoint
from modules.families.base import Model
from modules.families.components import Source
from modules.families.open_clip import stored_name
from modules.library.files import Library
from modules.library.headers import Header
from modules.merging.edits import Called, called, edits
from modules.merging.methods import METHODS, Method
from modules.merging.models import Checkpoint, open_checkpoint
from modules.merging.plan import Step, make_plan
from modules.merging.values import pieces, survey
from modules.runtime.patches import Replacement

KEY = "The merge"


class Merged(Mapping[str, Tensor]):
    """The tensors of a merge by name, each computed when it is asked for."""

    def __init__(self, steps: Mapping[str, Step], method: Method, bounds: tuple[float, float]) -> None:
        self._steps, self._method, self._bounds = steps, method, bounds

    def __getitem__(self, name: str) -> Tensor:
        step = self._steps[name]
        with torch.no_grad():
            return torch.cat(list(pieces(step, self._method, self._bounds))).reshape(step.info.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._steps

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


@dataclass(frozen=True)
class Opened:
    """A merge whose models are open: its steps by component (of a folder, empty for a file) and name."""

    first: Checkpoint
    steps: Mapping[str, Mapping[str, Step]]
    method: Method
    bounds: tuple[float, float]
    stamp: str

    def sources(self) -> Mapping[str, Source]:
        """Return where the parameters of each component are among the merged tensors."""
        header = self.first.header
        names = {part.files: name for name, part in header.components.items()}

        def opened(*paths: str) -> Mapping[str, Tensor]:
            return Merged(self.steps.get(names.get(paths, ""), {}), self.method, self.bounds)
        family = self.first.latent_diffusion
        variant = self.first.variant
        return checkpoint.sources(header, variant, family.towers(variant.components["unet"]), opened)

    def step(self, component: str, name: str) -> Step | None:
        """Return what makes the tensor ``name`` of a component's source; None where it is as in model A."""
        steps = self.steps.get(component if self.first.header.components else "", {})
        step = steps.get(stored_name(name))
        return None if step is None or step.kept else step

    def key(self, step: Step) -> str:
        """Return a text that is the same where the values of ``step`` are."""
        numbers = (step.alpha, step.beta, step.seed, step.copied, step.channels, step.info.dtype, self.bounds)
        return f"{KEY} ({self.stamp} {numbers})"


class Previews:
    """Merges applied to loaded models; the files of the last one stay open until ``close``."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._stack = ExitStack()
        self._last: tuple[Recipe, Opened] | None = None

    def patches(self, recipe: Recipe, model: Model, ref: ModelRef, watch: Watch) -> tuple[Replacement, ...]:
        """Return what the merge of ``recipe`` changes about ``model``, which is its model A, loaded from ``ref``.

        Weights that it leaves as they are in A are not among them, nor is an autoencoder that is not A's own. What
        ``discard`` names is merged all the same. Raises ``InvalidModel`` for models that do not go together,
        ``InvalidRequest``, ``NotFound``.
        """
        if self._last is None or self._last[0] != recipe:
            self.close()
            self._last = recipe, self._opened(recipe, watch)
        opened = self._last[1]
        found = []
        for component, source in opened.sources().items():
            if component not in model.modules or (component == "vae" and ref.vae is not None):
                continue
            for name, _ in model.modules[component].named_parameters():
                step = opened.step(component, source.name(name))
                if step is not None:
                    found.append(Replacement(component, name, opened.key(step), _reading(source, name)))
        return tuple(found)

    def close(self) -> None:
        """Close all files."""
        self._last = None
        self._stack.close()

    def _opened(self, recipe: Recipe, watch: Watch) -> Opened:
        watch.phase("Opening the models to merge")
        files = [self._library.find_checkpoint(name) for name in recipe.models]
        models = [open_checkpoint(file.path, file.name, recipe.ema, self._stack) for file in files]
        first, method = models[0], METHODS[recipe.method]
        networks = called(recipe.loras, self._library, first)
        plan = make_plan(loadable(recipe, first), models, {}, edits(networks, first))
        if method.survey is not None:
            watch.phase("Comparing the models to merge")
        bounds = survey(plan.steps, method, _checking(watch))
        steps: dict[str, dict[str, Step]] = {}
        for step in plan.steps:
            steps.setdefault(step.component, {})[step.name] = step
        return Opened(first, steps, method, bounds, _stamp(recipe, models, networks))


def loadable(recipe: Recipe, first: Checkpoint) -> Recipe:
    """Return ``recipe`` without what matters to the file alone: its layout is model A's, nothing is discarded."""
    return dataclasses.replace(recipe, format=DIFFUSERS if first.targets else SAFETENSORS, discard="")


def _reading(source: Source, name: str) -> Callable[[], Tensor]:
    return lambda: source.weights[source.name(name)]


def _checking(watch: Watch) -> Callable[[int], None]:
    def advance(count: int) -> None:
        watch.check()
    return advance


def _stamp(recipe: Recipe, models: Sequence[Checkpoint], networks: Sequence[Called]) -> str:
    """Return digits that change with the method, the LoRAs' weights and every file that is read."""
    files = [*(file for model in models for file in _files(model.header)), *(one.file.path for one in networks)]
    states = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    return hashlib.sha256(repr((recipe.method, recipe.ema, recipe.loras, states)).encode()).hexdigest()[:16]


def _files(header: Header) -> list[str]:
    return [file for part in header.components.values() for file in part.files] or [header.path]
