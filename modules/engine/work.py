"""What one batch is made from, and with what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from modules.core.errors import InvalidRequest
from modules.core.merge import Recipe
from modules.core.plan import ModelRef, Pass, Picture, Plan
from modules.core.result import Watch
from modules.core.settings import Settings
from modules.engine.canvas import Canvas
from modules.engine.loader import Loaded, Loader
from modules.engine.preview import Previewer
from modules.families.base import Model
from modules.imaging.faces import FaceRestorer, FindRestorer
from modules.imaging.resize import Upscaler
from modules.imaging.upscalers import Occasion
from modules.library.inputs import Inputs
from modules.plugin.hooks import Active
from modules.runtime.patches import Patch
from modules.sampling.samplers import Sampler


class Merges(Protocol):
    """Who computes what a merge makes of a loaded model."""

    def patches(self, recipe: Recipe, model: Model, ref: ModelRef, watch: Watch) -> Sequence[Patch]:
        """Return what the merge changes about ``model``, which is its model A, loaded from ``ref``."""

    def close(self) -> None:
        """Let go of the files of the last merge."""


@dataclass(frozen=True)
class Bench:
    """What every batch is made with: models, previews, upscalers of pixels by name, samplers, and stored pictures.

    ``restorer`` finds a face restorer by its name. ``merges`` is None where no merge can be tried out.
    """

    loader: Loader
    previewer: Previewer
    upscalers: Mapping[str, Upscaler]
    samplers: Sequence[Sampler]
    inputs: Inputs
    restorer: FindRestorer
    merges: Merges | None = None


@dataclass(frozen=True)
class Work:
    """A batch of pictures within a plan, the plugins that take part, and who watches.

    ``canvases`` are what its pictures begin from, one for each; there are none in text to image. ``restorer`` makes
    the faces good, where that is asked for.
    """

    plan: Plan
    pictures: tuple[Picture, ...]
    active: Sequence[Active]
    watch: Watch
    canvases: tuple[Canvas, ...] = ()
    restorer: FaceRestorer | None = None

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return [picture.seed for picture in self.pictures]

    def said(self, pass_: Pass) -> tuple[Picture, ...]:
        """Return the pictures with the prompts that ``pass_`` says."""
        return tuple(
            dataclasses.replace(picture, prompt=pass_.prompt or picture.prompt,
                                negative_prompt=pass_.negative_prompt or picture.negative_prompt)
            for picture in self.pictures
        )


def occasion(settings: Settings, picture: Picture, watch: Watch) -> Occasion:
    """Return what an upscaler is told that enlarges ``picture`` on its way; ``watch`` hears of each of its tiles."""
    def advance(done: int, total: int) -> None:
        watch.check()
        watch.phase(f"Upscaling, {100 * done // total} %" if total > 1 else "Upscaling")
    return Occasion(settings, picture.prompt, picture.negative_prompt, picture.seed, advance)


def merge_patches(bench: Bench, work: Work, loaded: Loaded) -> Sequence[Patch]:
    """Return what the merge that is tried out changes about ``loaded``: nothing about a model beside the first one.

    Raises ``InvalidRequest`` where no merge can be tried out, and what ``Merges.patches`` raises.
    """
    recipe = work.plan.request.merge
    if recipe is None or loaded.ref != work.plan.passes[0].segments[0].model:
        return ()
    if bench.merges is None:
        raise InvalidRequest("No merge can be tried out here.")
    return bench.merges.patches(recipe, loaded.model, loaded.ref, work.watch)
