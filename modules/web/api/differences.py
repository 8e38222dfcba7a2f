"""``/darkroom/v1/differences``: two checkpoints compared block by block, as numbers and as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from modules.core.difference import KIND, Comparison
from modules.core.errors import NotFound
from modules.core.job import FINISHED, Job
from modules.web.answers import owner_of
from modules.web.api import native_models as models
from modules.web.pictures import PICTURE

ORIGIN = "api"
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


class Compared(BaseModel):
    """Two checkpoints by any of their names."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_a: str
    model_b: str


def drawing(app: Any) -> APIRouter:
    """Return the route of the picture."""
    routes = APIRouter(prefix="/differences")

    @routes.get("/{job_id}/picture", responses=PNG, response_class=Response)
    def picture(job_id: str, theme: Literal["dark", "light"] = "light") -> Response:
        """Return what a finished comparison found as a picture: a bar for each block."""
        return Response(drawn(app.job(job_id), theme), media_type="image/png", headers=PICTURE)

    return routes


def router(app: Any, detail: Callable[[Any, Request], dict[str, Any]]) -> APIRouter:
    """Return the routes; ``detail(job, request)`` is a job as the API shows it."""
    routes = APIRouter()
    routes.include_router(drawing(app))

    @routes.post("/differences", status_code=202)
    def compare(body: Compared, request: Request, response: Response) -> models.Submitted:
        """Queue a comparison; the job's ``result`` has ``blocks``, each with its ``difference``: |A - B| / |A|."""
        asked = Comparison(body.model_a, body.model_b)
        view = detail(app.submit_comparison(asked, owner=owner_of(request), origin=ORIGIN), request)
        response.headers["Location"] = view["links"]["self"]
        return models.Submitted(**view)

    return routes


def drawn(job: Job, theme: str) -> bytes:
    """Return the PNG of a comparison; raises ``NotFound`` where ``job`` is none that has finished."""
    from modules.imaging.bars import THEMES, bars

    if job.request.kind != KIND or job.state != FINISHED:
        raise NotFound("This is no comparison that has finished.", "Wait until it has.")
    title = f"{job.result['model_b']} against {job.result['model_a']}"
    values = [(str(block["block"]), block["difference"]) for block in job.result["blocks"]]
    buffer = io.BytesIO()
    bars(title, "Relative difference |A - B| / |A| of each block", values, THEMES[theme]).save(buffer, "PNG")
    return buffer.getvalue()
