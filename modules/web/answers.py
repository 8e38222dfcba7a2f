"""Who asks, whether the page itself asks, and how an error is answered."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from modules.core.errors import DarkroomError, Forbidden, InvalidRequest

HEADER = "x-darkroom"
MAX_SHOWN = 2_000
SHOWN_PROBLEMS = 5


def add_error_answers(site: FastAPI) -> None:
    """Answer every error with its status and a message instead of a traceback; see ``failure_view``."""
    site.add_exception_handler(DarkroomError, lambda _, error: answer(error))
    site.add_exception_handler(RequestValidationError, lambda _, error: answer(invalid(error)))
    site.add_exception_handler(HTTPException, lambda _, error: _answer_http(error))
    site.add_exception_handler(Exception, lambda _, error: answer(unexpected(error), name=type(error).__name__))


def answer(error: Any, headers: Mapping[str, str] | None = None, name: str = "") -> JSONResponse:
    """Return the answer to a request that failed with a ``DarkroomError``; ``name`` replaces the error's class."""
    view = failure_view(error)
    return JSONResponse(view | {"error": name or view["error"]}, error.status, headers)


def failure_view(error: DarkroomError) -> dict[str, str]:
    """Return an error as the page and both APIs show it.

    ``error`` is its class, ``message`` what happened, ``hint`` what to do. ``detail``, ``body`` and ``errors`` are
    where clients of A1111's API look.
    """
    message, hint, text = (_showable(one) for one in (error.message, error.hint, str(error)))
    return {"error": type(error).__name__, "detail": text, "body": "", "errors": text, "message": message,
            "hint": hint}


def invalid(error: Any) -> InvalidRequest:
    """Return what the checks of a request's types found, each with the field's name, but not the values sent."""
    problems = [_problem(item) for item in error.errors()]
    rest = f" And {len(problems) - SHOWN_PROBLEMS} more." if len(problems) > SHOWN_PROBLEMS else ""
    return InvalidRequest(f"{'; '.join(problems[:SHOWN_PROBLEMS])}.{rest}")


def unexpected(error: Exception) -> DarkroomError:
    """Return what is said of an error that should not happen."""
    return DarkroomError(f"Something went wrong inside the server: {type(error).__name__}: {error}",
                         "The terminal shows where.")


def same_site(request: Request) -> None:
    """Refuse a change that another web site sends through the visitor's browser.

    Such a site cannot set a header of its own without the server's consent.
    """
    if request.method not in ("GET", "HEAD") and HEADER not in request.headers:
        raise Forbidden("This request does not come from the page.")


def owner_of(request: Any) -> str:
    """Return whose request this is; empty without accounts."""
    return str(request.scope.get("darkroom_user") or "")


def _answer_http(error: Any) -> JSONResponse:
    known = DarkroomError(str(error.detail or HTTPStatus(error.status_code).phrase))
    known.status = error.status_code
    return answer(known, error.headers, "HTTPException")


def _problem(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return f"The body is no JSON: {item['ctx']['error']} at character {item['loc'][-1]}"
    where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
    return f"{where or 'The body'}: {item['msg']}"


def _showable(text: str) -> str:
    """Return ``text`` of bearable length and without half characters, which no answer could hold."""
    shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return shown.encode(errors="replace").decode()
