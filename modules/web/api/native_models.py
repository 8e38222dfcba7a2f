"""What goes in and out of ``/darkroom/v1``."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from modules.core import request as core
from modules.core import settings as core_settings
from modules.core.grid import Grid


class Out(BaseModel):
    """Base of answers; a field's name may begin with ``model_``."""

    model_config = ConfigDict(protected_namespaces=())


class Failed(Out):
    """Why a request was not served: the error's class, what happened, and what to do."""

    error: str
    message: str
    hint: str = ""


class Image(Out):
    """A saved picture; ``seed`` is digits, so that 64 bits survive JavaScript."""

    url: str
    thumbnail: str
    kind: str
    width: int
    height: int
    seed: str
    infotext: str


class Failure(Failed):
    """Why a job failed, with the status that a caller who waits would have got."""

    status: int


class Progress(Out):
    """Where a running job stands; ``eta`` in seconds, null while unknown."""

    picture: int
    pictures: int
    step: int
    steps: int
    fraction: float
    eta: float | None
    phase: str
    preview: int


class Job(Out):
    """A job. Times are seconds since the epoch, 0 for what has not happened yet; ``result`` is what it says beside
    pictures. ``shown`` are the places in ``images`` of what is meant to be seen, in order."""

    id: str
    state: str
    parent: str
    origin: str
    created: float
    started: float
    ended: float
    images: list[Image]
    shown: list[int]
    failure: Failure | None
    warnings: list[str]
    progress: Progress | None
    preview_url: str
    result: dict[str, Any]
    request: dict[str, Any]
    links: dict[str, str]


class Input(Out):
    """A stored picture: its id, and its size in pixels once it was turned upright."""

    id: str
    width: int
    height: int


class Submitted(Job):
    """A job that was just queued."""


class Jobs(Out):
    """A page of jobs; ``more`` says whether another follows."""

    jobs: list[Job]
    limit: int
    offset: int
    more: bool


class Queue(Out):
    """What runs and what waits, in order."""

    paused: bool
    running: list[Job]
    queued: list[Job]


class Move(BaseModel):
    """Which job, and before which other; null puts it last."""

    model_config = ConfigDict(extra="forbid")

    id: str
    before: str | None = None


class Model(Out):
    """A model on disk: size in bytes, mtime in seconds, sha256 null while unknown."""

    title: str
    name: str
    sha256: str | None
    size: int
    mtime: float


class Sampler(Out):
    """A sampler; ``schedule`` is what Automatic means for it, empty for evenly spaced timesteps."""

    name: str
    aliases: list[str]
    schedule: str
    calls_per_step: int
    noise: str


class Schedule(Out):
    """A schedule; name, label or alias, each finds it."""

    name: str
    label: str
    aliases: list[str]


class Upscaler(Out):
    """An upscaler of hires fix; ``space`` is ``latent`` or ``pixels``."""

    name: str
    space: str


class StyleTexts(BaseModel):
    """What a style adds to the prompts; each ``{prompt}`` takes the prompt in."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = ""
    negative_prompt: str = ""


class Style(Out):
    """A style and what it adds to the prompts."""

    name: str
    prompt: str
    negative_prompt: str


class Axis(Out):
    """An axis of the X/Y/Z plot: how its values are read, and those that there are, where not any may be given."""

    label: str
    kind: str
    cost: float
    choices: list[str]


class Extension(Out):
    """An extension; a ``pending`` one changes with the next start."""

    id: str
    name: str
    description: str
    version: str
    error: str
    enabled: bool
    pending: bool


class Engine(Out):
    """How the engine does: ``starting``, ``ready``, ``busy``, ``restarting`` or ``stopped``."""

    state: str
    message: str
    device: str
    pid: int


class Status(Out):
    """How the whole program does."""

    version: str
    engine: Engine
    paused: bool
    running: str | None
    queued: int


def _generation() -> Any:
    """Return the model of a generation's fields, from the dataclass that carries them."""
    hints = typing.get_type_hints(core.Request)
    described: dict[str, Any] = {}
    for item in dataclasses.fields(core.Request):
        kind, default = _kind(item.name, hints[item.name]), item.default
        if kind is Grid:
            described[item.name] = (GridFields, Field(default_factory=GridFields))
        elif default is dataclasses.MISSING:
            described[item.name] = (kind, Field(default_factory=dict))
        else:
            described[item.name] = (kind, list(default) if isinstance(default, tuple) else default)
    settings = Field(default_factory=dict, description="Overrides of the settings, for this generation alone.")
    described["settings"] = (dict[str, Any], settings)
    return create_model(
        "GenerationFields", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **described)


def _grid() -> Any:
    described: dict[str, Any] = {item.name: (type(item.default), item.default) for item in dataclasses.fields(Grid)}
    return create_model("GridFields", __config__=ConfigDict(extra="forbid"), **described)


def _kind(name: str, hint: Any) -> Any:
    if name == "merge":
        return dict[str, Any] | None
    if name == "plugins":
        return dict[str, dict[str, Any]]
    return list[str] if typing.get_origin(hint) is tuple else hint


def _settings() -> Any:
    infos = core_settings.setting_infos()
    described: dict[str, Any] = {
        item.name: (list[str] if isinstance(item.default, tuple) else type(item.default),
                    Field(description=infos[item.name].label))
        for item in dataclasses.fields(core_settings.Settings)
    }
    return create_model("SettingFields", __base__=Out, **described)


GridFields: Any = _grid()
GenerationFields: Any = _generation()
SettingFields: Any = _settings()


class Generation(GenerationFields):
    """Pictures to make. A seed of -1 is a random one; an empty model is the one that is chosen in the settings."""


class Settings(SettingFields):
    """Every setting."""
