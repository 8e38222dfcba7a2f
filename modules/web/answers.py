"""Who asks, whether the page itself asks, and how an error is answered."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from modules.core.errors import DarkroomError, Forbidden

HEADER = "x-darkroom"


def add_error_answers(site: FastAPI) -> None:
    """Answer every ``DarkroomError`` with its status and a message instead of a traceback."""
    @site.exception_handler(DarkroomError)
    def answer(_: Request, error: DarkroomError) -> JSONResponse:
        return JSONResponse(failure_view(error), error.status)


def failure_view(error: DarkroomError) -> dict[str, str]:
    """Return an error as the page shows it."""
    return {"error": type(error).__name__, "detail": str(error), "message": error.message, "hint": error.hint}


def same_site(request: Request) -> None:
    """Refuse a change that another web site sends through the visitor's browser.

    Such a site cannot set a header of its own without the server's consent.
    """
    if request.method not in ("GET", "HEAD") and HEADER not in request.headers:
        raise Forbidden("This request does not come from the page.")


def owner_of(request: Any) -> str:
    """Return whose request this is; empty without accounts."""
    return str(request.scope.get("darkroom_user") or "")
