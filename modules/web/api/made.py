"""From a job that has ended to the answer of ``/sdapi/v1/txt2img`` or ``img2img``."""

from __future__ import annotations

import json
import time
from typing import Any

from modules.core.errors import ERRORS, DarkroomError, Interrupted, InvalidRequest
from modules.core.job import CANCELLED, FAILED, FINISHED, Job, shown_images
from modules.core.result import GRID, Failure
from modules.core.task import generation_of
from modules.library.infotext import Infotext, parse
from modules.web.api.pictures import encoded
from modules.web.api.sdapi_models import GenerationRequest

KNOWN = frozenset({
    "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size-1", "Size-2", "Model", "Model hash", "VAE",
    "VAE hash", "Variation seed", "Variation seed strength", "Seed resize from-1", "Seed resize from-2", "Clip skip",
    "Denoising strength", "Tiling", "Version", "Face restoration",
})


PICTURES = ("init_images", "mask", "depth_map", "latent_mask", "firstpass_image")


def answer(job: Job, parameters: str, body: GenerationRequest) -> bytes:
    """Return the JSON of the answer; ``parameters`` are those of ``body``, as JSON.

    A grid comes first where settings say ``return_grid``. Raises what the job failed with, and ``Interrupted`` where
    it was stopped before there was a picture.
    """
    shown = [job.images[number] for number in shown_images(job)]
    # A plot with a cell that failed has been drawn all the same.
    drawn = generation_of(job.request).grid.wanted and any(image.kind == GRID for image in shown)
    if job.state == FAILED and not drawn:
        raise failed(job.failure or Failure("DarkroomError", "The job failed."))
    if job.state != FINISHED and not shown:
        text = "cancelled" if job.state == CANCELLED else "interrupted"
        raise Interrupted(f"The job was {text} before a picture was finished.")
    images = [encoded(image.path) for image in shown] if body.send_images is not False else []
    info = json.dumps(info_of(job) | {"styles": body.styles or []})
    return f'{{"images": {json.dumps(images)}, "parameters": {parameters}, "info": {json.dumps(info)}}}'.encode()


def echo(body: Any) -> str:
    """Return a request's fields as JSON, pictures only where it wants them back.

    Raises ``InvalidRequest`` for what JSON cannot hold.
    """
    try:
        values = {name: getattr(body, name) for name in type(body).model_fields}
        if not values.get("include_init_images"):
            values |= {name: None for name in PICTURES if name in values}
        return json.dumps(values, allow_nan=False)
    except (ValueError, RecursionError):
        raise InvalidRequest("The request holds a number that is not finite, or is nested too deeply.") from None


def failed(failure: Failure) -> DarkroomError:
    """Return the error that a job failed with."""
    error = ERRORS.get(failure.error, DarkroomError)(failure.message, failure.hint)
    error.status = failure.status
    return error


def info_of(job: Job) -> dict[str, Any]:
    """Return what A1111 puts into ``info``; what was really used, such as seeds, comes from the infotexts."""
    request, shown = generation_of(job.request), [job.images[number] for number in shown_images(job)]
    pictures = [image for image in shown if image.kind != GRID]
    texts = [parse(image.infotext) for image in pictures] or [Infotext(request.prompt, request.negative_prompt)]
    first = texts[0].parameters
    seeds = [image.seed for image in pictures] or [request.seed]
    subseeds = [_subseed(text, request.subseed + index) for index, text in enumerate(texts)]
    return {
        "prompt": texts[0].prompt, "all_prompts": [text.prompt for text in texts],
        "negative_prompt": texts[0].negative_prompt,
        "all_negative_prompts": [text.negative_prompt for text in texts],
        "seed": seeds[0], "all_seeds": seeds, "subseed": subseeds[0], "all_subseeds": subseeds,
        "subseed_strength": request.subseed_strength, "width": request.width, "height": request.height,
        "sampler_name": request.sampler, "cfg_scale": request.guidance_scale, "steps": request.steps,
        "batch_size": request.batch_size, "restore_faces": request.restore_faces,
        "face_restoration_model": request.settings.face_restoration_model if request.restore_faces else None,
        "sd_model_name": first.get("Model") or _stem(request.model), "sd_model_hash": first.get("Model hash"),
        "sd_vae_name": first.get("VAE"), "sd_vae_hash": first.get("VAE hash"),
        "seed_resize_from_w": request.seed_resize_from_w, "seed_resize_from_h": request.seed_resize_from_h,
        "denoising_strength": request.denoising_strength if request.enable_hr or request.kind == "img2img" else None,
        "extra_generation_params": {key: value for key, value in first.items() if key not in KNOWN},
        "index_of_first_image": len(shown) - len(pictures), "infotexts": [image.infotext for image in shown],
        "job_timestamp": timestamp(job),
        "clip_skip": request.settings.CLIP_stop_at_last_layers, "is_using_inpainting_conditioning": False,
        "version": first.get("Version"), "warnings": list(job.warnings),
    }


def timestamp(job: Job) -> str:
    """Return when a job began, as A1111 writes it."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(job.started or job.created))


def _subseed(text: Infotext, default: int) -> int:
    written = text.parameters.get("Variation seed", "")
    return int(written) if written.isdecimal() and len(written) <= 20 else default


def _stem(name: str) -> str:
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[0]
