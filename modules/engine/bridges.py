"""From one pass to the next: the latent resized, or decoded, upscaled and encoded again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from modules.core.plan import Bridge, Pass
from modules.engine import pictures
from modules.engine.canvas import SMALLEST, flattened
from modules.engine.entries import before_hires
from modules.engine.loader import Loaded
from modules.engine.work import Bench, Work, occasion
from modules.families.base import LatentFormat
from modules.imaging.resize import JUST_RESIZE, LATENT_UPSCALERS, RESAMPLERS, Upscaler, fitted
from modules.imaging.upscalers import told

BEFORE_HIRES = "before-highres-fix"

Beginning = Callable[[Loaded], torch.Tensor]
"""Returns what a pass begins from, once its model is there: clean latents [pictures, channels, height, width]."""


def leave(bench: Bench, work: Work, pass_: Pass, latents: torch.Tensor, loaded: Loaded) -> Beginning:
    """Return how ``pass_`` begins from ``latents`` that ``loaded`` made; decodes them now if pixels are wanted.

    A copy of the pictures goes to ``watch`` where the settings ask for it.
    """
    bridge = pass_.bridge
    assert bridge is not None
    keep = work.plan.request.settings.save_images_before_highres_fix
    images = _decoded(bench, work, latents, loaded) if keep or bridge.space == "pixels" else []
    if keep:
        _keep(work, images)
    if bridge.space == "pixels":
        return lambda following: _encoded(bench, work, pass_, images, following)
    return lambda following: cropped(resized(latents, bridge, following.model.variant.latent),
                                     pass_, following.model.variant.latent)


def enter(bench: Bench, work: Work, pass_: Pass, image: Image.Image) -> Beginning:
    """Return how ``pass_`` begins from a picture that takes the place of what the pass before would have made."""
    bridge, count = pass_.bridge, len(work.pictures)
    assert bridge is not None
    image = flattened(image, work.plan.request.settings.img2img_background_color)

    def encoded(following: Loaded) -> torch.Tensor:
        work.watch.phase("Encoding")
        width, height = (max(SMALLEST, side // 8 * 8) for side in image.size)
        whole = fitted(image, width, height, JUST_RESIZE)
        latent = following.model.variant.latent
        return cropped(resized(pictures.encode(bench.loader, following, whole), bridge, latent), pass_, latent)

    begin = encoded if bridge.space == "latent" else lambda following: _encoded(bench, work, pass_, [image], following)
    return lambda following: begin(following).expand(count, -1, -1, -1)


def resized(latents: torch.Tensor, bridge: Bridge, latent: LatentFormat) -> torch.Tensor:
    """Return ``latents`` interpolated to the bridge's size, as A1111's latent upscalers do."""
    mode, antialias = LATENT_UPSCALERS[bridge.method]
    size = bridge.resize_height // latent.factor, bridge.resize_width // latent.factor
    return torch.nn.functional.interpolate(latents, size=size, mode=mode, antialias=antialias)


def cropped(latents: torch.Tensor, pass_: Pass, latent: LatentFormat) -> torch.Tensor:
    """Return the middle of ``latents`` in the size of ``pass_``; of an odd margin the smaller half is at the start."""
    top, left = ((have - side // latent.factor) // 2
                 for have, side in zip(latents.shape[-2:], (pass_.height, pass_.width), strict=True))
    return latents[..., top:top + pass_.height // latent.factor, left:left + pass_.width // latent.factor]


def upscaled(upscaler: Upscaler, image: Image.Image, bridge: Bridge) -> Image.Image:
    """Return ``image`` at the bridge's size: by ``upscaler`` where that is larger, else plainly resized."""
    size = bridge.resize_width, bridge.resize_height
    if image.width < size[0] or image.height < size[1]:
        image = upscaler.upscale(image, *size)
    return RESAMPLERS["Lanczos"].upscale(image, *size)


def _decoded(bench: Bench, work: Work, latents: torch.Tensor, loaded: Loaded) -> list[Image.Image]:
    work.watch.phase("Decoding")
    return [pictures.decode(bench.loader, loaded, latent) for latent in latents.split(1)]


def _encoded(
    bench: Bench, work: Work, pass_: Pass, images: Sequence[Image.Image], loaded: Loaded
) -> torch.Tensor:
    assert pass_.bridge is not None
    upscaler = bench.upscalers[pass_.bridge.method]
    latents = []
    for picture, image in zip(work.said(pass_), images, strict=False):  # one may stand for all
        work.watch.check()
        work.watch.phase("Upscaling")
        about = occasion(work.plan.request.settings, picture, work.watch)
        larger = upscaled(told(upscaler, about), image, pass_.bridge)
        work.watch.phase("Encoding")
        latents.append(pictures.encode(bench.loader, loaded, larger))
    return cropped(torch.cat(latents), pass_, loaded.model.variant.latent)


def _keep(work: Work, images: Sequence[Image.Image]) -> None:
    first = dataclasses.replace(work, plan=dataclasses.replace(work.plan, parameters=before_hires(work.plan)))
    for picture, image in zip(work.pictures, images, strict=True):
        work.watch.picture(pictures.finished(first, picture, image, stage=BEFORE_HIRES))
