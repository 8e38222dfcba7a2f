"""What the engine will do for a request: pictures, passes and segments, all decided before any tensor exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.guidance import Guidance
from modules.core.request import Request


@dataclass(frozen=True)
class ModelRef:
    """A checkpoint and the VAE to use with it: absolute paths, ``vae`` None for the checkpoint's own."""

    checkpoint: str
    vae: str | None = None


@dataclass(frozen=True)
class Picture:
    """One picture to make. ``parameters`` are infotext entries that plugins add to it, in order."""

    index: int
    prompt: str
    negative_prompt: str
    seed: int
    subseed: int
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """From the share ``start`` (0 to 1) of the schedule on, this model with these patches makes the calls.

    With ``first_step`` it does so from that step of the sampler on instead.
    """

    model: ModelRef
    start: float = 0.0
    patches: tuple[Any, ...] = ()
    first_step: int | None = None


@dataclass(frozen=True)
class Bridge:
    """How a pass begins from the one before: the latent resized, or decoded, upscaled and encoded again.

    ``space`` is ``latent`` or ``pixels``, ``method`` the name of a latent mode or of an upscaler, ``strength`` (0 to 1)
    how far up the schedule the pass begins; all its steps lie below. ``resize_width`` and ``resize_height`` are what
    the picture is brought to; where the pass is smaller, the middle is kept.
    """

    space: str
    method: str
    strength: float
    resize_width: int
    resize_height: int


@dataclass(frozen=True)
class SoftBlend:
    """How the kept part of a picture gives way gradually (AUTOMATIC1111's soft inpainting), all numbers at least 0.

    While sampling, a cell that the mask repaints by ``m`` takes ``m ** (sigma ** bias * preservation)`` of what is
    sampled; ``boost`` (at least 1) is the power at which the lengths of both latents are averaged. Of the result is
    shown what differs: half of it where latents are ``threshold`` apart, more abruptly the higher ``contrast``;
    ``influence`` (0 to 1) is how much the mask matters beside the difference.
    """

    bias: float = 1.0
    preservation: float = 0.5
    boost: float = 4.0
    influence: float = 0.0
    threshold: float = 0.5
    contrast: float = 2.0


@dataclass(frozen=True)
class Start:
    """How a pass begins from given pictures: ``strength`` (0 to 1) is how far up the schedule.

    With ``exact`` all its steps lie below, otherwise the pass has only that share of them. Their noise is multiplied
    by ``noise``. With ``soft`` the mask is blended softly.
    """

    strength: float
    exact: bool = False
    noise: float = 1.0
    soft: SoftBlend | None = None


@dataclass(frozen=True)
class Pass:
    """One run of a sampler over a schedule at one size (pixels), from noise unless ``bridge`` or ``start`` is given.

    ``prompt`` and ``negative_prompt`` are said instead of the picture's where they are not empty. Where ``made`` is the
    id of a stored picture, nothing is sampled: what the pass would make is that.
    """

    width: int
    height: int
    steps: int
    sampler: str
    schedule: str
    guidance: Guidance
    segments: tuple[Segment, ...]
    bridge: Bridge | None = None
    prompt: str = ""
    negative_prompt: str = ""
    start: Start | None = None
    made: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything decided for a request; ``parameters`` are the infotext entries that all pictures share.

    ``warnings`` are what the user should know, said with the result.
    """

    request: Request
    pictures: tuple[Picture, ...]
    passes: tuple[Pass, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
