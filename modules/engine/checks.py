"""Whether a plan can be carried out, found out from headers before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import PurePath

from modules.core.errors import InvalidRequest
from modules.core.plan import ModelRef, Pass, Plan
from modules.families.base import Variant
from modules.families.image_condition import USE_AS_UPSCALER
from modules.imaging.resize import LATENT_UPSCALERS


def check_plan(plan: Plan, variant: Callable[[ModelRef], Variant], upscalers: Collection[str]) -> None:
    """Raise ``InvalidRequest`` where a model cannot do what the plan wants of it, or an upscaler does not exist."""
    for ref in dict.fromkeys(segment.model for pass_ in plan.passes for segment in pass_.segments):
        if variant(ref).role == "upscaler":
            raise InvalidRequest(f"{_name(ref)} is an upscaler: it makes a picture larger, and none by itself.",
                                 f"{USE_AS_UPSCALER} Choose another checkpoint here.")
    first = plan.passes[0].segments[0].model
    if variant(first).role == "refiner" and plan.passes[0].start is None:
        raise InvalidRequest(f"{_name(first)} is a refiner: it can only go on with a picture that another model began.",
                             "Choose it as the refiner, and another checkpoint to begin with.")
    for ours, theirs in _sharing_latents(plan.passes):
        if variant(ours).latent != variant(theirs).latent:
            raise InvalidRequest(f"{_name(theirs)} cannot go on with the latents of {_name(ours)}: they are of "
                                 "different kinds.", "Choose models of one family, or an upscaler that is not latent.")
    for bridge in (pass_.bridge for pass_ in plan.passes if pass_.bridge):
        if bridge.method not in (LATENT_UPSCALERS if bridge.space == "latent" else upscalers):
            raise InvalidRequest(f"There is no upscaler {bridge.method[:100]!r}.",
                                 f"There are {', '.join((*LATENT_UPSCALERS, *upscalers))}.")


def _sharing_latents(passes: tuple[Pass, ...]) -> Iterator[tuple[ModelRef, ModelRef]]:
    """Yield models of which the second takes over latents from the first."""
    before: ModelRef | None = None
    for pass_ in passes:
        models = [segment.model for segment in pass_.segments]
        if before is not None and pass_.bridge and pass_.bridge.space == "latent":
            models.insert(0, before)
        yield from zip(models[:-1], models[1:], strict=True)
        before = models[-1]


def _name(ref: ModelRef) -> str:
    return PurePath(ref.checkpoint).name
