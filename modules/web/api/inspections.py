"""``/darkroom/v1/inspections``: what a model file is and holds, by its kind and name; the page asks the same routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from modules.app import inspection
from modules.core.inspection import Check
from modules.families.inspection import LABELS, matching
from modules.library.headers import read_header
from modules.web.answers import owner_of
from modules.web.api import native_models as models

ORIGIN = "api"
Text = Annotated[str, Query(max_length=300)]
Limit = Annotated[int, Query(ge=0, le=1000)]
Offset = Annotated[int, Query(ge=0, le=10**9)]


class Kind(models.Out):
    """A kind of models, and what people call it."""

    kind: str
    label: str


class Names(models.Out):
    """A page of the names of models, and how many there are in all."""

    names: list[str]
    count: int


class Part(models.Out):
    """A part of a file; ``dtypes`` counts tensors by type, ``ranks`` a network's modules by rank."""

    name: str
    tensors: int
    elements: int
    bytes: int
    dtypes: dict[str, int]
    ranks: dict[str, int]


class Inspection(models.Out):
    """What a file is: ``what`` in words, ``problem`` why it cannot be used, ``hashes`` empty while unknown.

    ``tags`` are words of training captions with their counts, ``recipe`` that of a merge. Sizes are in bytes.
    """

    kind: str
    name: str
    title: str
    size: int
    modified: float
    what: str
    family: str
    layout: str
    problem: str
    details: dict[str, str]
    elements: int
    bytes: int
    parts: list[Part]
    hashes: dict[str, str]
    training: dict[str, str]
    tags: list[tuple[str, int]]
    recipe: dict[str, Any] | None
    metadata: dict[str, str]


class Tensor(models.Out):
    """A tensor: its type is safetensors' name of it."""

    name: str
    dtype: str
    shape: list[int]
    bytes: int


class Tensors(models.Out):
    """A page of a file's tensors, and how many there are in all."""

    tensors: list[Tensor]
    count: int


class Checked(BaseModel):
    """Which file to read to its end, for hashes that are not known, for values that are no numbers, or for both."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    name: str
    hashes: bool = True
    values: bool = True


def reading(app: Any) -> APIRouter:
    """Return the routes that read headers."""
    routes = APIRouter(prefix="/inspections")

    @routes.get("/kinds")
    def kinds() -> list[Kind]:
        """List the kinds of models that can be looked at."""
        return [Kind(kind=kind, label=label) for kind, label in LABELS.items()]

    @routes.get("/names")
    def names(kind: str, text: Text = "", limit: Limit = 100, offset: Offset = 0) -> Names:
        """List the models of a kind whose names hold every word of ``text``."""
        found = inspection.names(app.library, kind, text)
        return Names(names=found[offset:offset + limit], count=len(found))

    @routes.get("")
    def look(kind: str, name: str) -> Inspection:
        """Return what a file is, from its header alone."""
        return Inspection(**inspection.view(inspection.look(app.library, kind, name)))

    @routes.get("/tensors")
    def tensors(kind: str, name: str, text: Text = "", limit: Limit = 100, offset: Offset = 0) -> Tensors:
        """List the tensors whose names hold every word of ``text``."""
        found = matching(read_header(app.library.find(kind, name).path), text)
        shown = [Tensor(name=name, dtype=info.dtype, shape=list(info.shape), bytes=info.bytes)
                 for name, info in found[offset:offset + limit]]
        return Tensors(tensors=shown, count=len(found))

    return routes


def router(app: Any, detail: Callable[[Any, Request], dict[str, Any]]) -> APIRouter:
    """Return the routes; ``detail(job, request)`` is a job as the API shows it."""
    routes = APIRouter()
    routes.include_router(reading(app))

    @routes.post("/inspections/checks", status_code=202)
    def check(body: Checked, request: Request, response: Response) -> models.Submitted:
        """Queue the reading of a whole file; the job's ``result`` has ``hashes`` and ``values``."""
        view = detail(app.submit_check(Check(**body.model_dump()), owner=owner_of(request), origin=ORIGIN), request)
        response.headers["Location"] = view["links"]["self"]
        return models.Submitted(**view)

    return routes
