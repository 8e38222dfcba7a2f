"""What the page's scripts see of jobs and pictures: plain JSON, without paths and without the request."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from modules.core.grid import TITLE, has_axis
from modules.core.job import RUNNING, Job, shown_images
from modules.core.request import hires_size
from modules.core.result import SavedImage
from modules.core.task import Task

PROMPT_CHARACTERS = 300


@dataclass(frozen=True)
class Addresses:
    """Where jobs are, and what a job's pictures are called below it."""

    jobs: str
    pictures: str

    def picture(self, job_id: str, index: int) -> str:
        """Return the address of one picture."""
        return f"{self.jobs}/{job_id}/{self.pictures}/{index}"


PAGE = Addresses("darkroom/page/jobs", "pictures")


def job_view(job: Job, addresses: Addresses = PAGE) -> dict[str, Any]:
    """Return a job without its request; addresses are relative to the page's root unless others are given.

    To the page a job has no images that is not to be shown; ``saved`` counts them all the same.
    """
    hidden = addresses == PAGE and isinstance(job.request, Task) and not job.request.shown
    images = () if hidden else job.images
    return {
        "id": job.id, "state": job.state, "parent": job.parent, "origin": job.origin,
        "created": job.created, "started": job.started, "ended": job.ended,
        "images": [image_view(addresses.picture(job.id, index), image) for index, image in enumerate(images)],
        "shown": [] if hidden else list(shown_images(job)),
        "saved": len(job.images),
        "failure": dataclasses.asdict(job.failure) if job.failure else None,
        "warnings": list(job.warnings),
        "result": dict(job.result),
        "progress": dataclasses.asdict(job.progress) if job.progress else None,
        "preview_url": preview_url(job, addresses),
    }


def row_view(job: Job) -> dict[str, Any]:
    """Return a job for the queue's list, with what its request asks for in short."""
    request = job.request
    if isinstance(request, Task):
        return job_view(job) | {"prompt": request.title, "summary": request.summary, "pictures": request.pictures}
    size = f"{request.width}×{request.height}"
    if request.enable_hr:
        size += " → {}×{}".format(*hires_size(request)[1])
    axes = [label for label, _ in request.grid.axes.values() if has_axis(label)]
    return job_view(job) | {
        "prompt": request.prompt[:PROMPT_CHARACTERS],
        "summary": f"{size} · {request.steps} steps · {request.sampler}"
                   + (f" · {TITLE}: {', '.join(axes)}" if axes else ""),
        # Those of a plot are known once it runs.
        "pictures": job.progress.pictures if job.progress else request.pictures,
    }


def image_view(address: str, image: SavedImage) -> dict[str, Any]:
    """Return a saved picture that is at ``address``."""
    return {
        "url": address, "thumbnail": f"{address}?size=512", "kind": image.kind, "width": image.width,
        "height": image.height, "seed": str(image.seed), "infotext": image.infotext,
    }


def preview_url(job: Job, addresses: Addresses = PAGE) -> str:
    """Return the address of the newest preview of a running job; empty where there is none."""
    if job.state != RUNNING or job.progress is None or not job.progress.preview:
        return ""
    return f"{addresses.jobs}/{job.id}/preview?n={job.progress.preview}"


def extension_views(app: Any) -> list[dict[str, Any]]:
    """Return all extensions; those that are ``pending`` change with the next start."""
    disabled = app.settings.get().disabled_extensions
    return [_extension_view(found, found.id not in disabled) for found in app.host.found]


def _extension_view(found: Any, enabled: bool) -> dict[str, Any]:
    plugin = found.plugin
    return {
        "id": found.id,
        "name": plugin.name if plugin else found.id,
        "description": plugin.description if plugin else "",
        "version": plugin.version if plugin else "",
        "error": found.error,
        "enabled": enabled,
        "pending": enabled != (plugin is not None or bool(found.error)),
    }
