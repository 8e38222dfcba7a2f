"""``/darkroom/v1/merges``: checkpoints and LoRAs merged, LoRAs extracted, methods, a checkpoint's recipe."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from modules.core import codec
from modules.core.lora import LoraExtraction, LoraMerge
from modules.core.merge import METHODS, Recipe
from modules.core.merge_blocks import PRESETS
from modules.core.merge_metadata import read_recipe
from modules.library.headers import read_header, read_metadata
from modules.web.answers import owner_of
from modules.web.api import native_models as models
from modules.web.merge_fields import OTHERS, RENAMED, recipe_values

ORIGIN = "api"


def _fields(work: type, **more: Any) -> Any:
    """Return the model of what ``work`` has, and of ``more`` fields beside these."""
    hints = typing.get_type_hints(work)
    described: dict[str, Any] = {item.name: (hints[item.name], item.default) for item in dataclasses.fields(work)}
    return create_model(f"{work.__name__}Fields", __config__=ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=()), **described, **more)


A1111 = (Any, Field(None, description="As in A1111's Checkpoint Merger."))
MergeFields: Any = _fields(Recipe, **dict.fromkeys((*RENAMED, *OTHERS), A1111))
LoraMergeFields: Any = _fields(LoraMerge)
LoraExtractionFields: Any = _fields(LoraExtraction)


class Merge(MergeFields):
    """Checkpoints to merge: the recipe's own fields, or A1111's names for them."""


class MergeOfLoras(LoraMergeFields):
    """LoRAs to merge into one: their tags, as in a prompt, and a checkpoint that they are for."""


class Extraction(LoraExtractionFields):
    """Two checkpoints whose difference becomes a LoRA, and how closely."""


class Method(models.Out):
    """A way to merge, how many models it takes, and what its numbers are called; empty for none."""

    id: str
    label: str
    models: int
    formula: str
    alpha: str
    beta: str


class Methods(models.Out):
    """The methods, and the names of presets of block weights."""

    methods: list[Method]
    presets: list[str]


class RecipeOf(BaseModel):
    """Which checkpoint's recipe is wanted, by any of its names."""

    model_config = ConfigDict(extra="forbid")

    model: str


def router(app: Any, detail: Any) -> APIRouter:
    """Return the routes; ``detail(job, request)`` is a job as the API shows it."""
    routes = APIRouter(prefix="/merges")

    def queue(work: Any, request: Request, response: Response) -> models.Submitted:
        view = detail(app.submit_work(work, owner=owner_of(request), origin=ORIGIN), request)
        response.headers["Location"] = view["links"]["self"]
        return models.Submitted(**view)

    @routes.post("", status_code=202)
    def submit(body: Merge, request: Request, response: Response) -> models.Submitted:
        """Queue a merge into a new checkpoint and answer at once; the job's ``result`` has its name and its hash."""
        return queue(codec.decode(Recipe, recipe_values(given(body))), request, response)

    @routes.post("/loras", status_code=202)
    def loras(body: MergeOfLoras, request: Request, response: Response) -> models.Submitted:
        """Queue a merge of LoRAs into a new one and answer at once; ``result`` as that of a merge."""
        return queue(codec.decode(LoraMerge, given(body)), request, response)

    @routes.post("/extractions", status_code=202)
    def extractions(body: Extraction, request: Request, response: Response) -> models.Submitted:
        """Queue the extraction of a LoRA and answer at once; ``result`` also has the share of the squared difference
        that was ``kept``.
        """
        return queue(codec.decode(LoraExtraction, given(body)), request, response)

    @routes.get("/methods")
    def methods() -> Methods:
        """List the methods and the presets of block weights."""
        return Methods(methods=[Method(**dataclasses.asdict(one)) for one in METHODS.values()], presets=list(PRESETS))

    @routes.post("/recipe")
    def recipe(body: RecipeOf) -> dict[str, Any]:
        """Return the recipe that is in a merged checkpoint's metadata."""
        header = read_header(app.library.find_checkpoint(body.model).path)
        found: dict[str, Any] = codec.encode(read_recipe(read_metadata(header)))
        return found

    return routes


def given(body: Any) -> dict[str, Any]:
    """Return the fields that a request has."""
    return {name: getattr(body, name) for name in body.model_fields_set}
