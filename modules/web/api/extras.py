"""``/sdapi/v1/extra-single-image`` and ``extra-batch-images``: pictures enlarged, faces restored, and by what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from modules.core.errors import Interrupted, InvalidRequest
from modules.core.extras import Extras, Source
from modules.core.job import FAILED, Job
from modules.core.result import Failure
from modules.library.face_restorers import face_restorers
from modules.library.files import ModelFile
from modules.library.images import read_image_info
from modules.library.inputs import Inputs
from modules.library.upscalers import scale_of, upscalers
from modules.web.answers import owner_of
from modules.web.api import sdapi_models as models
from modules.web.api.made import failed
from modules.web.api.pictures import decoded, encoded
from modules.web.api.waiting import ended

ORIGIN = "api"


def router(app: Any) -> APIRouter:
    """Return the routes for ``app``."""
    routes = APIRouter(strict_content_type=False)

    @routes.post("/extra-single-image")
    async def single(body: models.ExtrasSingleRequest, request: Request) -> models.ExtrasSingleAnswer:
        """Enlarge a picture and answer once it is there."""
        job = await _done(app, body, [models.FileData(data=body.image, name="image")], request)
        return models.ExtrasSingleAnswer(html_info="", image=encoded(job.images[0].path))

    @routes.post("/extra-batch-images")
    async def batch(body: models.ExtrasBatchRequest, request: Request) -> models.ExtrasBatchAnswer:
        """Enlarge pictures and answer once all are there; one that cannot be is left out and named in html_info."""
        job = await _done(app, body, body.imageList, request)
        return models.ExtrasBatchAnswer(html_info="\n".join(job.warnings),
                                        images=[encoded(image.path) for image in job.images])

    @routes.get("/upscalers")
    def listed() -> list[models.UpscalerItem]:
        """List the upscalers of pictures."""
        files = upscalers(app.library)
        return [_item(name, files.get(name)) for name in app.offered_upscalers()]

    @routes.get("/realesrgan-models")
    def realesrgan() -> list[models.RealesrganItem]:
        """List the upscalers that are Real-ESRGAN's, by their names."""
        return [models.RealesrganItem(name=name, path=file.path, scale=scale_of(file.stem))
                for name, file in upscalers(app.library).items() if name.startswith("R-ESRGAN")]

    @routes.get("/face-restorers")
    def restorers() -> list[models.FaceRestorerItem]:
        """List the face restorers whose files are there, each with its folder."""
        return [models.FaceRestorerItem(name=name, cmd_dir=str(Path(files.restorer.path).parent))
                for name, files in face_restorers(app.library).items()]

    return routes


def _item(name: str, file: ModelFile | None) -> models.UpscalerItem:
    if file is None:
        return models.UpscalerItem(name=name, model_name=None, model_path=None, model_url=None, scale=4)
    return models.UpscalerItem(name=name, model_name=file.stem, model_path=file.path, model_url=None,
                               scale=scale_of(file.stem))


def asked(body: models.ExtrasRequest, sources: Sequence[Source]) -> Extras:
    """Return what ``body`` asks for."""
    names = [field.name for field in dataclasses.fields(Extras) if field.name in type(body).model_fields]
    return Extras(sources=tuple(sources), **{name: getattr(body, name) for name in names})


async def _done(app: Any, body: models.ExtrasRequest, files: Sequence[models.FileData], request: Request) -> Job:
    job = await run_in_threadpool(_submit, app, body, files, owner_of(request))
    job = await ended(app, job.id, request)
    if job.state == FAILED:
        raise failed(job.failure or Failure("DarkroomError", "The job failed."))
    if not job.images:
        raise Interrupted("The job was stopped before a picture was finished.")
    return job


def _submit(app: Any, body: models.ExtrasRequest, files: Sequence[models.FileData], owner: str) -> Job:
    inputs, settings = Inputs(app.folders.inputs), app.settings.get()
    sources, problems = [], []
    for file in files:
        try:
            data = decoded(file.data, settings)
            sources.append(Source(inputs.keep(data).id, file.name, read_image_info(data).infotext))
        except InvalidRequest as error:
            if len(files) == 1:
                raise
            problems.append(f"{file.name} was skipped: {error.message}")
    job: Job = app.submit_extras(asked(body, sources), owner=owner, blocking=True, origin=ORIGIN, warnings=problems)
    return job
