"""Routes of the Inspector: the API's that read headers, and those that queue what reads whole files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from modules.core import codec
from modules.core.difference import Comparison
from modules.core.inspection import Check
from modules.web.answers import owner_of
from modules.web.api import differences, inspections
from modules.web.views import job_view


def routes(app: Any) -> APIRouter:
    """Return the routes ``inspections``."""
    own = APIRouter()
    own.include_router(inspections.reading(app))
    own.include_router(differences.drawing(app))

    @own.post("/inspections/checks")
    def check(request: Request, body: Annotated[dict[str, Any], Body()]) -> Any:
        """Queue the reading of a whole file; answers the job."""
        return job_view(app.submit_check(codec.decode(Check, body), owner=owner_of(request)))

    @own.post("/differences")
    def compare(request: Request, body: Annotated[dict[str, Any], Body()]) -> Any:
        """Queue a comparison of two checkpoints; answers the job."""
        return job_view(app.submit_comparison(codec.decode(Comparison, body), owner=owner_of(request)))

    return own
