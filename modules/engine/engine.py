"""The shared processing module: Request → Plan → pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from modules.core.errors import Interrupted, Skipped
from modules.core.plan import Plan
from modules.core.request import Request
from modules.core.result import FinishedPicture, Watch
from modules.engine import images, pictures, planner
from modules.engine.checks import check_plan
from modules.engine.loader import Loader
from modules.engine.preview import Previewer
from modules.engine.sampling import BatchSampling, Reached
from modules.engine.work import Bench, Merges, Work
from modules.imaging.faces import FindRestorer, no_restorer
from modules.imaging.resize import RESAMPLERS, Upscaler
from modules.library.files import Library
from modules.library.inputs import Inputs
from modules.plugin import hooks
from modules.plugin.hooks import Active
from modules.prompts import tags
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.sampling.samplers import SAMPLERS, Sampler


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
    """Owns the loaded models and runs one request at a time.

    ``upscalers`` are those of pixels, by name; ``samplers`` are all that a request may name; ``restorer`` finds a face
    restorer; ``merges`` tries merges out.
    """

    def __init__(
        self, library: Library, models: Models, placement: Placement,
        upscalers: Mapping[str, Upscaler] = RESAMPLERS, samplers: Sequence[Sampler] = SAMPLERS,
        restorer: FindRestorer = no_restorer, merges: Merges | None = None,
    ) -> None:
        self._bench = Bench(Loader(library, models, placement), Previewer(library), upscalers, samplers,
                            Inputs(library.folders.inputs), restorer, merges)

    def generate(
        self, request: Request, active: Sequence[Active], watch: Watch, done: frozenset[int] = frozenset()
    ) -> Result:
        """Make every picture of ``request``, whose seeds are fixed, handing each to ``watch`` as it is done.

        Indices in ``done`` were made before and are left out. Raises ``Interrupted`` when asked to stop,
        ``PluginFailed`` naming a plugin, ``InvalidModel``, ``OutOfMemory`` and ``NoModel``.
        """
        try:
            result: Result = hooks.around(active, request, lambda one: self._generate(one, active, watch, done))
            return result
        finally:
            if self._bench.merges is not None:
                self._bench.merges.close()
            self._bench.loader.rest()

    def unload(self) -> None:
        """Free every model and everything derived from one."""
        self._bench.previewer.clear()
        self._bench.loader.free()

    def _generate(self, request: Request, active: Sequence[Active], watch: Watch, done: frozenset[int]) -> Result:
        loader = self._bench.loader
        loader.placement.attention.prefer(request.settings.cross_attention_optimization)
        samplers = self._bench.samplers
        begun = planner.plan(request, loader.resolve(request), hooks.infotext(active), samplers)
        plan = hooks.on_plan(active, begun)
        check_plan(plan, loader.variant, tuple(self._bench.upscalers))
        restorer = self._bench.restorer(request.settings.face_restoration_model) if request.restore_faces else None
        made: tuple[FinishedPicture, ...] = ()
        count, stopped = 0, False
        for batch in planner.batches(plan, samplers):
            if done.issuperset(batch):
                continue
            if stopped := watch.stopping():
                break
            watch.check()
            watch.batch(batch[0], len(batch))
            try:
                wanted = tuple(plan.pictures[index] for index in batch)
                canvases = images.opened(self._bench, plan, wanted, watch)
                made = self._batch(Work(plan, wanted, active, watch, canvases, restorer))
            except Skipped:
                continue
            count += len(made)
        hooks.on_result(active, plan)
        return Result(count, made, (*unclaimed_tags(plan, active), *plan.warnings), not stopped)

    def _batch(self, work: Work) -> tuple[FinishedPicture, ...]:
        sampling = BatchSampling(self._bench, work)
        try:
            latents = sampling.run()
        except (Interrupted, Skipped):
            if sampling.reached.last is not None:
                self._hand_over(work, sampling.reached, sampling.reached.last, complete=False)
            raise
        return self._hand_over(work, sampling.reached, latents, complete=True)

    def _hand_over(
        self, work: Work, reached: Reached, latents: torch.Tensor, *, complete: bool
    ) -> tuple[FinishedPicture, ...]:
        """Decode picture by picture and give each to the plugins and to ``watch``."""
        assert reached.loaded is not None
        work.watch.phase("Decoding")
        made = []
        match_colors = work.plan.request.settings.img2img_color_correction
        for index, (picture, latent) in enumerate(zip(work.pictures, latents.split(1), strict=True)):
            image = pictures.decode(self._bench.loader, reached.loaded, latent)
            if complete and work.restorer is not None:
                image = pictures.with_faces_restored(work, work.restorer, image)
            if work.canvases:
                opacity = reached.opacity[index] if complete and len(reached.opacity) else None
                image = work.canvases[index].finished(image, match_colors, opacity)
            finished = pictures.finished(work, picture, image, complete=complete)
            made.append(hooks.on_image(work.active, finished, work.plan))
            work.watch.picture(made[-1])
        return tuple(made)


def unclaimed_tags(plan: Plan, active: Sequence[Active]) -> tuple[str, ...]:
    """Return a warning for each tag like ``<lora:name:1>`` that no plugin understands."""
    known = {name for item in active for name in item.plugin.tags}
    prompts = (*(picture.prompt for picture in plan.pictures), *(pass_.prompt for pass_ in plan.passes))
    found = {str(tag): None for prompt in prompts for tag in tags.extract(prompt)[1] if tag.name not in known}
    return tuple(f"No extension understands {tag}; it was left out." for tag in found)
