"""The shared processing module: Request → Plan → pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modules.core.errors import Interrupted, Skipped
from modules.core.plan import Plan
from modules.core.request import Request
from modules.core.result import FinishedPicture, Watch
from modules.engine import planner
from modules.engine.exhaustion import is_out_of_memory, out_of_memory
from modules.engine.loader import Loaded, Loader
from modules.engine.preview import Previewer, to_image
from modules.engine.sampling import BatchSampling
from modules.engine.work import Work
from modules.library.files import Library
from modules.plugin import hooks
from modules.plugin.hooks import Active
from modules.prompts import tags
from modules.runtime.device import Placement
from modules.runtime.memory import Models


@dataclass(frozen=True)
class Result:
    """What a generation made: how many pictures, those of the last batch, and what the user should know.

    ``complete`` is False when it stopped early because it was asked to.
    """

    count: int
    pictures: tuple[FinishedPicture, ...]
    warnings: tuple[str, ...] = ()
    complete: bool = True


class Engine:
    """Owns the loaded models and runs one request at a time."""

    def __init__(self, library: Library, models: Models, placement: Placement) -> None:
        self._loader = Loader(library, models, placement)
        self._previewer = Previewer(library)

    def generate(
        self, request: Request, active: Sequence[Active], watch: Watch, done: frozenset[int] = frozenset()
    ) -> Result:
        """Make every picture of ``request``, whose seeds are fixed, handing each to ``watch`` as it is done.

        Indices in ``done`` were made before and are left out. Raises ``Interrupted`` when asked to stop,
        ``PluginFailed`` naming a plugin, ``InvalidModel``, ``OutOfMemory`` and ``NoModel``.
        """
        result: Result = hooks.around(active, request, lambda one: self._generate(one, active, watch, done))
        return result

    def unload(self) -> None:
        """Free every model and everything derived from one."""
        self._previewer.clear()
        self._loader.free()

    def _generate(self, request: Request, active: Sequence[Active], watch: Watch, done: frozenset[int]) -> Result:
        ref, names = self._loader.resolve(request)
        plan = hooks.on_plan(active, planner.plan(request, ref, names, hooks.infotext(active)))
        made: tuple[FinishedPicture, ...] = ()
        count, stopped = 0, False
        for batch in planner.batches(plan.pictures, request.batch_size):
            if done.issuperset(batch):
                continue
            if stopped := watch.stopping():
                break
            watch.check()
            watch.batch(batch[0], len(plan.pictures))
            try:
                made = self._batch(Work(plan, tuple(plan.pictures[index] for index in batch), active, watch))
            except Skipped:
                continue
            count += len(made)
        hooks.on_result(active, plan)
        return Result(count, made, unclaimed_tags(plan, active), not stopped)

    def _batch(self, work: Work) -> tuple[FinishedPicture, ...]:
        sampling = BatchSampling(self._loader, self._previewer, work)
        try:
            latents = sampling.run()
        except (Interrupted, Skipped):
            if sampling.last is not None:
                self._hand_over(work, sampling.loaded, sampling.last, complete=False)
            raise
        return self._hand_over(work, sampling.loaded, latents, complete=True)

    def _hand_over(
        self, work: Work, loaded: Loaded, latents: torch.Tensor, *, complete: bool
    ) -> tuple[FinishedPicture, ...]:
        """Decode picture by picture and give each to the plugins and to ``watch``."""
        work.watch.phase("Decoding")
        made = []
        for picture, latent in zip(work.pictures, latents.split(1), strict=True):
            image = to_image(self._decode(work, loaded, latent)[0])
            parameters = planner.picture_parameters(work.plan, picture)
            finished = FinishedPicture(
                picture.index, image, picture.prompt, picture.negative_prompt, picture.seed, picture.subseed,
                loaded.ref, parameters, complete,
            )
            made.append(hooks.on_image(work.active, finished, work.plan))
            work.watch.picture(made[-1])
        return tuple(made)

    def _decode(self, work: Work, loaded: Loaded, latent: torch.Tensor) -> torch.Tensor:
        """Decode one latent; where memory does not suffice, free some and decode in tiles."""
        try:
            return loaded.family.decode(loaded.model, latent)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self._loader.release()
        try:
            return loaded.family.decode(loaded.model, latent, tiled=True)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            device = self._loader.placement.device
            raise out_of_memory("decoding", work.base.width, work.base.height, 1, device) from error


def unclaimed_tags(plan: Plan, active: Sequence[Active]) -> tuple[str, ...]:
    """Return a warning for each tag like ``<lora:name:1>`` that no plugin understands."""
    known = {name for item in active for name in item.plugin.tags}
    found = {str(tag): None for picture in plan.pictures for tag in tags.extract(picture.prompt)[1]
             if tag.name not in known}
    return tuple(f"No extension understands {tag}; it was left out." for tag in found)
