"""``/darkroom/v1/merges``: checkpoints merged, the methods there are, and the recipe a checkpoint was made by."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from modules.core import codec
from modules.core.merge import METHODS, Recipe
from modules.core.merge_blocks import PRESETS
from modules.core.merge_metadata import read_recipe
from modules.library.headers import read_header, read_metadata
from modules.web.answers import owner_of
from modules.web.api import native_models as models
from modules.web.merge_fields import OTHERS, RENAMED, recipe_values

ORIGIN = "api"


def _fields() -> Any:
    """Return the model of a recipe's fields and, beside them, of A1111's."""
    hints = typing.get_type_hints(Recipe)
    described: dict[str, Any] = {item.name: (hints[item.name], item.default) for item in dataclasses.fields(Recipe)}
    theirs = {**dict.fromkeys(RENAMED), **dict.fromkeys(OTHERS)}
    described |= {name: (Any, Field(None, description="As in A1111's Checkpoint Merger.")) for name in theirs}
    return create_model("MergeFields", __config__=ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=()), **described)


MergeFields: Any = _fields()


class Merge(MergeFields):
    """Checkpoints to merge: the recipe's own fields, or A1111's names for them."""


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

    @routes.post("", status_code=202)
    def submit(body: Merge, request: Request, response: Response) -> models.Submitted:
        """Queue a merge into a new checkpoint and answer at once; the job's ``result`` has its name and its hash."""
        job = app.submit_merge(asked(body), owner=owner_of(request), origin=ORIGIN)
        view = detail(job, request)
        response.headers["Location"] = view["links"]["self"]
        return models.Submitted(**view)

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


def asked(body: Any) -> Recipe:
    """Return the recipe of a request. Raises ``InvalidRequest`` naming the field."""
    return codec.decode(Recipe, recipe_values({name: getattr(body, name) for name in body.model_fields_set}))
