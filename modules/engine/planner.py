"""A request becomes a plan: seeds, pictures, batches, passes and their models. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import groupby

from modules.core.guidance import Guidance
from modules.core.plan import Bridge, ModelRef, Pass, Picture, Plan, Segment, Start
from modules.core.request import MAX_SEED, Request, hires_size, outpaint_margins
from modules.engine.entries import parameters
from modules.imaging.resize import LATENT_UPSCALERS
from modules.prompts import tags
from modules.sampling.samplers import SAMPLERS, Sampler, find_sampler


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that takes part, and what the infotext calls it and its VAE (empty for its own).

    ``takes`` is what its denoiser sees beside the noisy latent (``Variant.takes``).
    """

    ref: ModelRef
    name: str
    vae: str = ""
    takes: str = ""


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a request; ``hires`` and ``refiner`` are None where it names none."""

    base: Checkpoint
    hires: Checkpoint | None = None
    refiner: Checkpoint | None = None


def plan(
    request: Request, checkpoints: Checkpoints, extra: Mapping[str, str], samplers: Sequence[Sampler] = SAMPLERS
) -> Plan:
    """Return the plan for ``request``, whose seeds are fixed; ``extra`` are plugins' infotext entries."""
    pictures = tuple(_picture(request, index) for index in range(request.batch_size * request.batch_count))
    passes = (_base_pass(request, checkpoints), *_hires_pass(request, checkpoints, samplers))
    names = {"Model": checkpoints.base.name, "VAE": checkpoints.base.vae} | other_names(passes, checkpoints)
    return Plan(request, pictures, passes, parameters(request, names, extra, checkpoints.base.takes == "edit"))


def batches(plan: Plan, samplers: Sequence[Sampler] = SAMPLERS) -> tuple[tuple[int, ...], ...]:
    """Return indices of pictures sampled together: at most a batch, and only with the same network tags.

    One by one where a sampler looks at all of a batch to decide on its steps.
    """
    pictures, size = plan.pictures, plan.request.batch_size
    if any(find_sampler(pass_.sampler, samplers)[0].alone for pass_ in plan.passes):
        size = 1
    cut = (pictures[start:start + size] for start in range(0, len(pictures), size))
    return tuple(
        tuple(picture.index for picture in group)
        for batch in cut for _, group in groupby(batch, key=network_tags)
    )


def network_tags(picture: Picture) -> tuple[str, ...]:
    """Return the tags of a picture's prompt as they are written."""
    return tuple(str(tag) for tag in tags.extract(picture.prompt)[1])


def other_names(passes: tuple[Pass, ...], checkpoints: Checkpoints) -> dict[str, str]:
    """Return the infotext entries that name a checkpoint beside the first one, of those that take part."""
    refined = any(len(pass_.segments) > 1 for pass_ in passes)
    others = {"Hires checkpoint": checkpoints.hires, "Refiner": checkpoints.refiner if refined else None}
    return {key: other.name for key, other in others.items() if other}


def other_checkpoints(plan: Plan) -> dict[str, str]:
    """Return the paths of the checkpoints that infotext entries name beside the first one."""
    refined = [pass_.segments[-1].model for pass_ in plan.passes if len(pass_.segments) > 1]
    models = {"Hires checkpoint": [plan.passes[-1].segments[0].model], "Refiner": refined}
    return {key: found[0].checkpoint for key, found in models.items() if found and key in plan.parameters}


def _picture(request: Request, index: int) -> Picture:
    varies = request.subseed_strength > 0
    seed = request.seed if varies else (request.seed + index) % (MAX_SEED + 1)
    subseed = (request.subseed + index) % (MAX_SEED + 1)
    return Picture(index, request.prompt, request.negative_prompt, seed, subseed)


def _base_pass(request: Request, checkpoints: Checkpoints) -> Pass:
    refined = not request.enable_hr or request.settings.hires_fix_refiner_pass != "second pass"
    segments = _segments(request, checkpoints.base, checkpoints.refiner if refined else None)
    start = None
    if request.kind == "img2img":
        start = Start(request.denoising_strength, request.settings.img2img_fix_steps, request.initial_noise_multiplier)
    return Pass(
        *_canvas_size(request), request.steps, request.sampler, request.schedule,
        Guidance(request.guidance_scale, request.image_cfg_scale), segments, start=start, made=request.firstpass_image,
    )


def _canvas_size(request: Request) -> tuple[int, int]:
    """Return the size to sample at: with the margins of outpainting, rounded up, unless only a part is repainted."""
    left, up, right, down = outpaint_margins(request)
    if request.inpaint_full_res:
        return request.width, request.height
    return -8 * (-(request.width + left + right) // 8), -8 * (-(request.height + up + down) // 8)


def _hires_pass(request: Request, checkpoints: Checkpoints, samplers: Sequence[Sampler]) -> tuple[Pass, ...]:
    if not request.enable_hr:
        return ()
    resized, size = hires_size(request)
    space = "latent" if request.hr_upscaler in LATENT_UPSCALERS else "pixels"
    refined = request.settings.hires_fix_refiner_pass != "first pass"
    sampler, combined = find_sampler(request.hr_sampler or request.sampler, samplers)
    return (Pass(
        *size, request.hr_second_pass_steps or request.steps, sampler.name,
        request.hr_schedule or combined or request.schedule,
        Guidance(request.hr_guidance_scale or request.guidance_scale),
        _segments(request, checkpoints.hires or checkpoints.base, checkpoints.refiner if refined else None),
        Bridge(space, request.hr_upscaler, request.denoising_strength, *resized),
        request.hr_prompt, request.hr_negative_prompt,
    ),)


def _segments(request: Request, first: Checkpoint, refiner: Checkpoint | None) -> tuple[Segment, ...]:
    if refiner is None or refiner.ref == first.ref or request.refiner_switch_at >= 1:
        return (Segment(first.ref),)
    return (Segment(first.ref), Segment(refiner.ref, request.refiner_switch_at))
