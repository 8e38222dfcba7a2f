"""What a batch of image to image begins from: its canvases as latents, as masks of latents and as extra channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.plan import Pass, Picture, Plan
from modules.core.result import Watch
from modules.engine import pictures
from modules.engine.canvas import Beside, Canvas, canvas
from modules.engine.loader import Loaded, Loader
from modules.engine.work import Bench, Work, occasion
from modules.families.base import ImageCondition
from modules.imaging import masks
from modules.imaging.resize import JUST_RESIZE, LATENT_UPSCALE, Upscaler, fitted
from modules.imaging.upscalers import told
from modules.plugin import hooks

LATENT_NOISE, LATENT_NOTHING = 2, 3


@dataclass(frozen=True)
class Begun:
    """What a pass begins from: clean ``latents``, the ``noise`` on them, both [pictures, channels, height, width].

    ``keep`` [pictures, 1, height, width] is 1 where the picture is kept, 0 where it is repainted; None keeps nothing.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    keep: torch.Tensor | None = None


def opened(bench: Bench, plan: Plan, batch: Sequence[Picture], watch: Watch) -> tuple[Canvas, ...]:
    """Return the canvas of each picture of a batch; pictures that begin from the same one share it.

    ``watch`` hears of each tile of an upscaler. There is no canvas where the plan does not begin from pictures. Raises
    ``NotFound`` for an input that is gone, and ``InvalidRequest`` for an upscaler that is.
    """
    request = plan.request
    if plan.passes[0].start is None:
        return ()
    keys = [request.init_images[picture.index % len(request.init_images)] for picture in batch]
    inputs, upscaler = bench.inputs, _upscaler(bench, request.settings.upscaler_for_img2img)
    beside = Beside(*(inputs.open(key) if key else None
                      for key in (request.mask, request.depth_map, request.latent_mask)))
    first = dict(zip(reversed(keys), reversed(batch), strict=True))
    found = {key: canvas(request, inputs.open(key), beside, told(upscaler, occasion(request.settings, picture, watch)))
             for key, picture in first.items()}
    return tuple(found[key] for key in keys)


def _upscaler(bench: Bench, name: str) -> Upscaler:
    found = bench.upscalers.get(name)
    if found is None:
        raise InvalidRequest(f"There is no upscaler {name[:100]!r}.", "Choose another under Settings, img2img.")
    return found


def begun(loader: Loader, work: Work, pass_: Pass, loaded: Loaded, noise: torch.Tensor) -> Begun:
    """Return what ``pass_`` begins from, the masked content being what the request says; ``noise`` is the seeds'."""
    assert pass_.start is not None
    work.watch.phase("Encoding")
    latents = _encoded(loader, work, pass_, loaded).to(noise)
    keep, fill = _keep(work, pass_, latents), work.plan.request.inpainting_fill
    if keep is not None and fill in (LATENT_NOISE, LATENT_NOTHING):
        latents = latents * keep + noise * (1 - keep) * (fill == LATENT_NOISE)
    return Begun(latents, noise * pass_.start.noise, keep)


def condition(work: Work, pass_: Pass, takes: str) -> ImageCondition:
    """Return what the canvases tell a denoiser that takes more than a noisy latent (``Variant.takes``)."""
    width, height = pass_.width, pass_.height
    # What all pictures share is encoded once.
    shown = work.canvases[:1] if len({id(one) for one in work.canvases}) == 1 else work.canvases
    if not shown:
        return ImageCondition(width, height)
    pixels = torch.stack([_tensor(fitted(one.image, width, height, JUST_RESIZE)) for one in shown])
    found = [one.mask for one in shown if one.mask is not None]
    mask = torch.stack([_tensor(one) for one in found]) if found else None
    if mask is not None and _rounded(work, pass_):
        mask = mask.round()
    return ImageCondition(width, height, pixels, mask, _depth(work, pass_, shown) if takes == "depth" else None,
                          work.plan.request.settings.inpainting_mask_weight)


def _depth(work: Work, pass_: Pass, shown: Sequence[Canvas]) -> torch.Tensor | None:
    """Return how near the parts of each canvas are, as it was given or as a plugin finds it; None for neither."""
    found = [one.depth or hooks.depth(work.active, one.image) for one in shown]
    maps = [_tensor(fitted(one.convert("L"), pass_.width, pass_.height, JUST_RESIZE)) for one in found if one]
    return torch.stack(maps) if len(maps) == len(shown) else None


def _encoded(loader: Loader, work: Work, pass_: Pass, loaded: Loaded) -> torch.Tensor:
    different = {id(one): one for one in work.canvases}
    encoded = {key: pictures.encode(loader, loaded, one.image) for key, one in different.items()}
    latents = [encoded[id(one)] for one in work.canvases]
    if work.plan.request.resize_mode != LATENT_UPSCALE:
        return torch.cat(latents)
    factor = loaded.model.variant.latent.factor
    size = pass_.height // factor, pass_.width // factor
    return torch.cat([torch.nn.functional.interpolate(one, size=size, mode="bilinear") for one in latents])


def _rounded(work: Work, pass_: Pass) -> bool:
    """Return whether masks are black and white to the sampler and the denoiser."""
    request, soft = work.plan.request, pass_.start is not None and pass_.start.soft is not None
    return request.mask_round and request.inpaint_mode != "differential" and not soft


def _keep(work: Work, pass_: Pass, latents: torch.Tensor) -> torch.Tensor | None:
    (height, width), rounded = latents.shape[-2:], _rounded(work, pass_)
    found = [masks.latent_mask(one.latent_mask or one.mask, width, height, rounded)
             for one in work.canvases if one.mask is not None]
    return 1 - torch.from_numpy(np.stack(found)[:, None]).to(latents) if found else None


def _tensor(image: Image.Image) -> torch.Tensor:
    """Return RGB as [3, height, width], one channel as [1, height, width], in 0..1."""
    values = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(values[None] if values.ndim == 2 else values.transpose(2, 0, 1).copy())
