"""What the page's scripts see of jobs and pictures: plain JSON, without paths and without the request."""

from __future__ import annotations

import dataclasses
from typing import Any

from modules.core.job import RUNNING, Job
from modules.core.result import SavedImage

PROMPT_CHARACTERS = 300


def job_view(job: Job) -> dict[str, Any]:
    """Return a job without its request; addresses of pictures are relative to the page's root."""
    return {
        "id": job.id, "state": job.state, "parent": job.parent, "origin": job.origin,
        "created": job.created, "started": job.started, "ended": job.ended,
        "images": [image_view(job.id, index, image) for index, image in enumerate(job.images)],
        "failure": dataclasses.asdict(job.failure) if job.failure else None,
        "warnings": list(job.warnings),
        "progress": dataclasses.asdict(job.progress) if job.progress else None,
        "preview_url": preview_url(job),
    }


def row_view(job: Job) -> dict[str, Any]:
    """Return a job for the queue's list, with what its request asks for in short."""
    request = job.request
    return job_view(job) | {
        "prompt": request.prompt[:PROMPT_CHARACTERS],
        "summary": f"{request.width}×{request.height} · {request.steps} steps · {request.sampler}",
        "pictures": request.batch_count * request.batch_size,
    }


def image_view(job_id: str, index: int, image: SavedImage) -> dict[str, Any]:
    """Return a saved picture of a job with its addresses, relative to the page's root."""
    address = f"darkroom/page/jobs/{job_id}/pictures/{index}"
    return {
        "url": address, "thumbnail": f"{address}?size=512", "kind": image.kind, "width": image.width,
        "height": image.height, "seed": str(image.seed), "infotext": image.infotext,
    }


def preview_url(job: Job) -> str:
    """Return the address of the newest preview of a running job; empty where there is none."""
    if job.state != RUNNING or job.progress is None or not job.progress.preview:
        return ""
    return f"darkroom/page/jobs/{job.id}/preview?n={job.progress.preview}"
