"""What a person, a client or a script asks for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.grid import Grid, check_grid
from modules.core.merge import Recipe, check_recipe
from modules.core.settings import Settings

MAX_SEED = 2**64 - 1
MAX_PROMPT_CHARACTERS = 200_000
MAX_SIDE = 16_384
MAX_PIXELS = 64 * 1024 * 1024
MAX_STEPS = 1_000
# The steps of hires fix are the last of a run that is longer by the inverse of the strength.
MIN_STRENGTH = 0.001
MAX_BATCH_SIZE = 64
MAX_PICTURES = 10_000
INPUT_ID = re.compile(r"[0-9a-f]{32}")
IMAGE_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType({
    "resize_mode": (0, 3), "image_cfg_scale": (0.0, 100.0), "initial_noise_multiplier": (0.0, 10.0),
    "mask_blur_x": (0, 1024), "mask_blur_y": (0, 1024), "inpainting_fill": (0, 3),
    "inpaint_full_res_padding": (0, MAX_SIDE), "outpaint_left": (0, MAX_SIDE), "outpaint_right": (0, MAX_SIDE),
    "outpaint_up": (0, MAX_SIDE), "outpaint_down": (0, MAX_SIDE), "outpaint_noise_q": (0.0, 4.0),
    "outpaint_color_variation": (0.0, 1.0),
})
IMAGE_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "inpaint_mode": ("masked", "differential"), "outpaint_fill": ("noise", "edge"),
})


@dataclass(frozen=True)
class Request:
    """One generation: the same for the page, both APIs, the command line and the tests.

    ``model`` and ``vae`` are a title, a name or a hash; empty means what ``settings`` say. Seeds are 0 to 2^64-1;
    -1 asks for a random one, which ``with_random_seeds`` fixes before the request is queued. ``plugins`` maps a
    plugin's id to the values of its ``Params``. ``parameters`` are infotext entries to carry along.

    Hires fix (``enable_hr``) makes the picture again at ``hr_scale`` times its size, or at ``hr_resize_x`` by
    ``hr_resize_y`` where these are not 0 (one of them 0: in proportion), with ``denoising_strength``; its other
    fields mean "as the first pass" where they are 0 or empty. ``firstpass_image`` (an id) takes the place of what its
    first pass would make. From the share ``refiner_switch_at`` of the steps on,
    the checkpoint ``refiner`` goes on, where it is not empty. ``tiling`` makes pictures that repeat without a seam.
    ``restore_faces`` has faces made good by the setting ``face_restoration_model``.

    Image to image begins from ``init_images``, ids of stored inputs: one for all pictures, or one for each of a batch.
    They are brought to the size by ``resize_mode``: 0 just resize, 1 crop and resize, 2 resize and fill, 3 just resize
    the latent. ``mask`` (an id) is white where to repaint; ``inpainting_fill`` is what is there at the start: 0 the
    colours around, 1 the picture, 2 noise, 3 nothing. ``inpaint_full_res`` repaints only the part around the mask, at
    the full size. ``inpaint_mode`` is ``masked``, or ``differential``: shades of the mask say how much changes.
    ``outpaint_left`` and so on are pixels by which the picture grows, filled at the start with noise of the picture's
    own spectrum (``noise``) or the colours of its edge (``edge``). ``depth_map`` (an id) is light where the picture is
    near, for models that are told so. ``latent_mask`` (an id) is white where to repaint while sampling, as it is and
    without a blur; ``mask`` then only says where the result is shown.

    ``grid`` makes many requests of this one, whose pictures become the cells of an X/Y/Z plot.

    ``merge`` tries a merge out without saving it: it takes the place of ``model``.
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
    tiling: bool = False
    restore_faces: bool = False
    denoising_strength: float = 0.7
    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_checkpoint: str = ""
    hr_sampler: str = ""
    hr_schedule: str = ""
    hr_guidance_scale: float = 0.0
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    refiner: str = ""
    refiner_switch_at: float = 0.8
    init_images: tuple[str, ...] = ()
    resize_mode: int = 0
    image_cfg_scale: float = 1.5
    initial_noise_multiplier: float = 1.0
    mask: str = ""
    depth_map: str = ""
    latent_mask: str = ""
    firstpass_image: str = ""
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_round: bool = True
    inpainting_fill: int = 1
    inpaint_full_res: bool = False
    inpaint_full_res_padding: int = 32
    inpainting_mask_invert: bool = False
    inpaint_mode: str = "masked"
    outpaint_left: int = 0
    outpaint_right: int = 0
    outpaint_up: int = 0
    outpaint_down: int = 0
    outpaint_fill: str = "noise"
    outpaint_noise_q: float = 1.0
    outpaint_color_variation: float = 0.05
    model: str = ""
    vae: str = ""
    grid: Grid = field(default_factory=Grid)
    merge: Recipe | None = None
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    save_images: bool = True
    save_grid: bool = True

    @property
    def pictures(self) -> int:
        """How many pictures are asked for."""
        return self.batch_size * self.batch_count


def check(request: Request) -> Request:
    """Return ``request`` unchanged, or raise ``InvalidRequest`` with the field, its limits and what would do."""
    _check_prompts(request)
    _check_parameters(request)
    for name in ("width", "height"):
        _check_side(name, getattr(request, name), 1 if _grows(request) else 8)
    if request.width * request.height > MAX_PIXELS:
        raise InvalidRequest(f"{request.width}x{request.height} is more than {MAX_PIXELS // 1024**2} megapixels.")
    check_range("steps", request.steps, 1, MAX_STEPS)
    check_range("batch_size", request.batch_size, 1, MAX_BATCH_SIZE)
    check_range("batch_count", request.batch_count, 1, MAX_PICTURES)
    if request.batch_size * request.batch_count > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES} pictures can be asked for at once.")
    check_range("guidance_scale", request.guidance_scale, -100.0, 1000.0)
    check_range("subseed_strength", request.subseed_strength, 0.0, 1.0)
    check_range("denoising_strength", request.denoising_strength, 0.0, 1.0)
    check_range("refiner_switch_at", request.refiner_switch_at, 0.0, 1.0)
    _check_hires(request)
    _check_image(request)
    check_grid(request.grid)
    if request.merge is not None:
        check_recipe(request.merge)
    check_range("seed", request.seed, -1, MAX_SEED)
    check_range("subseed", request.subseed, -1, MAX_SEED)
    check_range("seed_resize_from_w", request.seed_resize_from_w, -1, MAX_SIDE)
    check_range("seed_resize_from_h", request.seed_resize_from_h, -1, MAX_SIDE)
    return request


def hires_size(request: Request) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what hires fix brings the picture to and what it makes: two sizes (width, height) in pixels.

    The first covers the second, whose middle is kept; sides are multiples of 8, rounded down. AUTOMATIC1111's rule.
    """
    width, height, wide, high = request.width, request.height, request.hr_resize_x, request.hr_resize_y
    if not wide and not high:
        covering = int(width * request.hr_scale), int(height * request.hr_scale)
    elif not high or (wide and wide * height > high * width):
        covering = wide, wide * height // width
    else:
        covering = high * width // height, high
    resized = _to_8(covering[0]), _to_8(covering[1])
    return resized, (_to_8(wide), _to_8(high)) if wide and high else resized


def _to_8(side: int) -> int:
    return max(8, side // 8 * 8)


def _check_hires(request: Request) -> None:
    if not request.enable_hr:
        return
    check_range("hr_scale", request.hr_scale, 1.0, 16.0)
    for name in ("hr_resize_x", "hr_resize_y"):
        check_range(name, getattr(request, name), 0, MAX_SIDE)
    check_range("hr_second_pass_steps", request.hr_second_pass_steps, 0, MAX_STEPS)
    check_range("hr_guidance_scale", request.hr_guidance_scale, -100.0, 1000.0)
    _check_strength(request)
    for width, height in hires_size(request):
        if min(width, height) < 64 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
            raise InvalidRequest(f"Hires fix cannot make {width}x{height}.",
                                 f"Sides are 64 to {MAX_SIDE} and at most {MAX_PIXELS // 1024**2} megapixels in all.")


def outpaint_margins(request: Request) -> tuple[int, int, int, int]:
    """Return by how many pixels the picture grows to the left, upwards, to the right and downwards."""
    return request.outpaint_left, request.outpaint_up, request.outpaint_right, request.outpaint_down


def stored_pictures(request: Request) -> tuple[str, ...]:
    """Return the ids of all pictures that a request begins from."""
    single = (request.mask, request.depth_map, request.latent_mask, request.firstpass_image)
    return (*request.init_images, *(key for key in single if key))


def repaints_a_part(request: Request) -> bool:
    """Return whether some of the picture is kept: there is a mask, or the picture grows."""
    return bool(request.mask or any(outpaint_margins(request)))


def _check_image(request: Request) -> None:
    images = request.init_images
    for name, (low, high) in IMAGE_RANGES.items():
        check_range(name, getattr(request, name), low, high)
    if request.kind != "img2img":
        if set(stored_pictures(request)) - {request.firstpass_image if request.enable_hr else ""}:
            raise InvalidRequest("Only image to image begins from a picture.")
        check_ids(stored_pictures(request))
        return
    if len(images) not in (1, request.batch_size):
        raise InvalidRequest(f"There are {len(images)} pictures to begin from and {request.batch_size} in a batch.",
                             "Give one picture, or one for each of the batch.")
    if request.latent_mask and not request.mask:
        raise InvalidRequest("A mask for the latent goes with a mask.", "Give both, or only the mask.")
    check_ids(stored_pictures(request))
    if request.enable_hr or request.firstpass_image:
        raise InvalidRequest("Hires fix is part of text to image.", "Choose a larger size instead.")
    if request.settings.img2img_fix_steps:
        _check_strength(request)
    for name, choices in IMAGE_CHOICES.items():
        if getattr(request, name) not in choices:
            raise InvalidRequest(f"{name}: {getattr(request, name)!r:.60} is none of {', '.join(choices)}.")
    if request.resize_mode == 3 and repaints_a_part(request):
        raise InvalidRequest("The latent alone cannot be resized where a part of the picture is kept.",
                             "Choose another resize mode.")
    _check_outpainting(request)


def check_ids(keys: Iterable[str]) -> None:
    """Raise ``InvalidRequest`` where one of ``keys`` cannot be the id of a stored picture."""
    for key in keys:
        if not INPUT_ID.fullmatch(key):
            raise InvalidRequest(f"{key[:40]!r} is not the id of a stored picture.")


def _check_outpainting(request: Request) -> None:
    left, up, right, down = outpaint_margins(request)
    width, height = request.width + left + right, request.height + up + down
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InvalidRequest(f"{width}x{height} is too large.",
                             f"Sides are at most {MAX_SIDE}, and {MAX_PIXELS // 1024**2} megapixels in all.")


def _check_strength(request: Request) -> None:
    if 0 < request.denoising_strength < MIN_STRENGTH:
        raise InvalidRequest(f"denoising_strength must be 0 or at least {MIN_STRENGTH}.")


def with_random_seeds(request: Request, random_seed: int, random_subseed: int) -> Request:
    """Return ``request`` with each seed of -1 replaced by the given one."""
    return dataclasses.replace(
        request,
        seed=random_seed if request.seed == -1 else request.seed,
        subseed=random_subseed if request.subseed == -1 else request.subseed,
    )


def _check_prompts(request: Request) -> None:
    for name in ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt"):
        length = len(getattr(request, name))
        if length > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(f"{name} has {length:,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed.")


def _check_parameters(request: Request) -> None:
    length = sum(len(name) + len(value) for name, value in request.parameters.items())
    most = 2 * MAX_PROMPT_CHARACTERS
    if length > most:
        raise InvalidRequest(f"parameters have {length:,} characters; at most {most:,} are allowed.")


def _grows(request: Request) -> bool:
    """Return whether what is sampled is larger than the size asked for; it is then rounded up."""
    return request.kind == "img2img" and any(outpaint_margins(request)) and not request.inpaint_full_res


def _check_side(name: str, value: int, multiple: int) -> None:
    check_range(name, value, 64, MAX_SIDE)
    if value % multiple:
        below = value - value % 8
        raise InvalidRequest(f"{name} {value} is not a multiple of 8.", f"Use {max(64, below)} or {below + 8}.")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ``InvalidRequest`` naming the field where ``value`` is not from ``low`` to ``high``."""
    if not low <= value <= high:
        raise InvalidRequest(f"{name} must be from {low} to {high}, not {value}.")
