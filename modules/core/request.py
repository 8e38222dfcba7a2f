"""What a person, a client or a script asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings

MAX_SEED = 2**64 - 1
MAX_PROMPT_CHARACTERS = 200_000
MAX_SIDE = 16_384
MAX_PIXELS = 64 * 1024 * 1024
MAX_STEPS = 1_000
MAX_BATCH_SIZE = 64
MAX_PICTURES = 10_000


@dataclass(frozen=True)
class Request:
    """One generation: the same for the page, both APIs, the command line and the tests.

    ``model`` and ``vae`` are a title, a name or a hash; empty means what ``settings`` say. Seeds are 0 to 2^64-1;
    -1 asks for a random one, which ``with_random_seeds`` fixes before the request is queued. ``plugins`` maps a
    plugin's id to the values of its ``Params``. ``parameters`` are infotext entries to carry along.
    """

    kind: str = "txt2img"
    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    width: int = 512
    height: int = 512
    steps: int = 20
    sampler: str = "DPM++ 2M"
    schedule: str = "Automatic"
    guidance_scale: float = 7.0
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0.0
    seed_resize_from_w: int = 0
    seed_resize_from_h: int = 0
    batch_size: int = 1
    batch_count: int = 1
    model: str = ""
    vae: str = ""
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    save_images: bool = True
    save_grid: bool = True


def check(request: Request) -> Request:
    """Return ``request`` unchanged, or raise ``InvalidRequest`` with the field, its limits and what would do."""
    _check_prompts(request)
    _check_parameters(request)
    for name in ("width", "height"):
        _check_side(name, getattr(request, name))
    if request.width * request.height > MAX_PIXELS:
        raise InvalidRequest(f"{request.width}x{request.height} is more than {MAX_PIXELS // 1024**2} megapixels.")
    _check_range("steps", request.steps, 1, MAX_STEPS)
    _check_range("batch_size", request.batch_size, 1, MAX_BATCH_SIZE)
    _check_range("batch_count", request.batch_count, 1, MAX_PICTURES)
    if request.batch_size * request.batch_count > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures can be asked for at once.")
    _check_range("guidance_scale", request.guidance_scale, -100.0, 1000.0)
    _check_range("subseed_strength", request.subseed_strength, 0.0, 1.0)
    _check_range("seed", request.seed, -1, MAX_SEED)
    _check_range("subseed", request.subseed, -1, MAX_SEED)
    _check_range("seed_resize_from_w", request.seed_resize_from_w, -1, MAX_SIDE)
    _check_range("seed_resize_from_h", request.seed_resize_from_h, -1, MAX_SIDE)
    return request


def with_random_seeds(request: Request, random_seed: int, random_subseed: int) -> Request:
    """Return ``request`` with each seed of -1 replaced by the given one."""
    return dataclasses.replace(
        request,
        seed=random_seed if request.seed == -1 else request.seed,
        subseed=random_subseed if request.subseed == -1 else request.subseed,
    )


def _check_prompts(request: Request) -> None:
    for name in ("prompt", "negative_prompt"):
        length = len(getattr(request, name))
        if length > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(f"{name} has {length:,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed.")


def _check_parameters(request: Request) -> None:
    length = sum(len(name) + len(value) for name, value in request.parameters.items())
    most = 2 * MAX_PROMPT_CHARACTERS
    if length > most:
        raise InvalidRequest(f"parameters have {length:,} characters; at most {most:,} are allowed.")


def _check_side(name: str, value: int) -> None:
    _check_range(name, value, 64, MAX_SIDE)
    if value % 8:
        below = value - value % 8
        raise InvalidRequest(f"{name} {value} is not a multiple of 8.", f"Use {max(64, below)} or {below + 8}.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{name} must be from {low} to {high}, not {value}.")
