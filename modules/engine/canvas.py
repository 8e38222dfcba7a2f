"""What image to image works on: pictures and masks brought to size, and results pasted back. PIL only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageFilter

from modules.core.errors import InvalidRequest
from modules.core.request import Request, outpaint_margins, repaints_a_part
from modules.imaging import masks, outpaint
from modules.imaging.color import corrected
from modules.imaging.masks import Box
from modules.imaging.resize import JUST_RESIZE, LATENT_UPSCALE, RESAMPLERS, RESIZE_AND_FILL, Upscaler, extended, fitted

Grow = Callable[[Image.Image, Box], Image.Image]

# What is encoded at its own size has whole cells, and enough of them for an autoencoder.
SMALLEST = 64
# Takes the steps from cell to cell out of what soft inpainting shows, in pixels.
SMOOTHING = 4


@dataclass(frozen=True)
class Canvas:
    """One picture to begin from: RGB ``image`` to encode and, where a part is kept, its ``mask`` (L, same size).

    ``latent_mask`` (L, same size) takes the place of ``mask`` while sampling.
    The result is pasted into ``box`` of ``original`` (all of it without) where ``overlay`` is not black; without an
    overlay it is taken as it is, cut to ``size``. ``depth`` (L, of the size of ``image``) is light where that is near.
    """

    image: Image.Image
    size: tuple[int, int]
    mask: Image.Image | None = None
    original: Image.Image | None = None
    overlay: Image.Image | None = None
    box: Box | None = None
    depth: Image.Image | None = None
    latent_mask: Image.Image | None = None

    def finished(
        self, result: Image.Image, match_colors: bool = False, opacity: np.ndarray | None = None
    ) -> Image.Image:
        """Return what a sampled and decoded picture becomes; its colours are matched to ``image`` first, if wanted.

        ``opacity`` (0..1, [height, width] of the latent) takes the place of ``overlay``.
        """
        if match_colors:
            result = corrected(result, self.image)
        overlay = self.overlay if opacity is None else self._laid_out(opacity)
        if self.original is not None and overlay is not None:
            result = masks.pasted(result, self.original, overlay, self.box)
        return result if result.size == self.size else result.crop((0, 0, *self.size))

    def _laid_out(self, opacity: np.ndarray) -> Image.Image:
        """Return ``opacity`` as a mask of ``original``: smooth, and black outside of ``box``."""
        assert self.original is not None
        cells = Image.fromarray(np.rint(opacity * 255).astype(np.uint8))
        mask = cells.resize(self.image.size, Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(SMOOTHING))
        if self.box is None:
            return mask
        left, top, right, bottom = self.box
        whole = Image.new("L", self.original.size)
        whole.paste(mask.resize((right - left, bottom - top), Image.Resampling.LANCZOS), self.box)
        return whole


@dataclass(frozen=True)
class Beside:
    """Stored pictures that go with the one to begin from: ``mask``, ``depth`` map, ``latent_mask``."""

    mask: Image.Image | None = None
    depth: Image.Image | None = None
    latent_mask: Image.Image | None = None


def canvas(request: Request, picture: Image.Image, beside: Beside,
           upscaler: Upscaler = RESAMPLERS["Lanczos"]) -> Canvas:
    """Return the canvas of a stored picture, enlarged by ``upscaler``; what goes with it is brought to its size.

    Raises ``InvalidRequest`` for a mask that leaves nothing to repaint.
    """
    found = _canvas(request, picture, beside.mask, upscaler)
    depth, latent_mask = (
        _following(request, one, picture.size, found, grow) if one else None
        for one, grow in ((beside.depth, extended), (beside.latent_mask, outpaint.grown_mask)))
    return dataclasses.replace(found, depth=depth, latent_mask=latent_mask)


def _canvas(request: Request, picture: Image.Image, mask: Image.Image | None, upscaler: Upscaler) -> Canvas:
    image = flattened(picture, request.settings.img2img_background_color)
    if not repaints_a_part(request):
        return _whole(request, image, upscaler)
    if mask is None:
        found = Image.new("L", image.size, 0)
    else:
        found = masks.mask_of(mask, request.mask_round, request.inpainting_mask_invert)
        found = RESAMPLERS["Bicubic"].upscale(found, *image.size)
    if not request.inpaint_full_res:
        size = request.width, request.height
        image, found = fitted(image, *size, request.resize_mode, upscaler), fitted(found, *size, request.resize_mode)
    image, found = _outpainted(request, image, found)
    if found.getbbox() is None:
        raise InvalidRequest("The mask is empty: nothing would be repainted.",
                             "Paint over what is to change, or invert the mask.")
    if request.inpaint_mode != "differential":
        found = masks.blurred(found, request.mask_blur_x, request.mask_blur_y)
    return _only_masked(request, image, found, upscaler) if request.inpaint_full_res else _masked(request, image, found)


def _following(request: Request, one: Image.Image, size: tuple[int, int], made: Canvas, grow: Grow) -> Image.Image:
    """Return ``one`` after all that was done to the picture, whose ``size`` was this, to make its canvas."""
    found = RESAMPLERS["Bicubic"].upscale(one.convert("L"), *size)
    a_part = repaints_a_part(request)
    if request.resize_mode != LATENT_UPSCALE and not (a_part and request.inpaint_full_res):
        found = fitted(found, request.width, request.height, request.resize_mode)
    if a_part and any(outpaint_margins(request)):
        found = grow(found, outpaint_margins(request))
    if made.box is not None:
        found = fitted(found.crop(made.box), request.width, request.height, RESIZE_AND_FILL)
    return fitted(found, made.image.width, made.image.height, JUST_RESIZE)


def flattened(picture: Image.Image, background: str) -> Image.Image:
    """Return ``picture`` as RGB, transparent parts in a colour; raises ``InvalidRequest`` for none (#rrggbb)."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    try:
        below = Image.new("RGBA", picture.size, ImageColor.getrgb(background))
    except ValueError as error:
        raise InvalidRequest(f"{background[:40]!r} is not a colour.", "Write #ffffff for white.") from error
    return Image.alpha_composite(below, picture).convert("RGB")


def _whole(request: Request, image: Image.Image, upscaler: Upscaler) -> Canvas:
    size = request.width, request.height
    if request.resize_mode == LATENT_UPSCALE:
        width, height = (max(SMALLEST, side // 8 * 8) for side in image.size)
        return Canvas(fitted(image, width, height, JUST_RESIZE), size)
    return Canvas(fitted(image, *size, request.resize_mode, upscaler), size)


def _outpainted(request: Request, image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
    margins = outpaint_margins(request)
    if not any(margins):
        return image, mask
    if request.outpaint_fill == "edge":
        grown = extended(image, margins)
    else:
        grown = outpaint.noisy_margins(
            image, margins, request.outpaint_noise_q, request.outpaint_color_variation, request.seed)
    blur = (0, 0) if request.inpaint_mode == "differential" else (request.mask_blur_x, request.mask_blur_y)
    return grown, outpaint.grown_mask(mask, margins, blur)


def _masked(request: Request, image: Image.Image, mask: Image.Image) -> Canvas:
    """All of the picture is sampled; what lies beyond its size, up to whole cells of the latent, is cut off again."""
    size = image.size
    beyond = (0, 0, -size[0] % 8, -size[1] % 8)
    wider, wider_mask = (extended(one, beyond) if any(beyond) else one for one in (image, mask))
    overlay = None if request.inpaint_mode == "differential" else masks.doubled(wider_mask)
    return Canvas(_filled(request, wider, wider_mask), size, wider_mask, wider, overlay)


def _only_masked(request: Request, image: Image.Image, mask: Image.Image, upscaler: Upscaler) -> Canvas:
    box = masks.region(mask, request.inpaint_full_res_padding, request.width, request.height)
    part = fitted(image.crop(box), request.width, request.height, RESIZE_AND_FILL, upscaler)
    part_mask = fitted(mask.crop(box), request.width, request.height, RESIZE_AND_FILL)
    # Where the mask says how much is to change, sampling has seen to it.
    overlay = mask.point(lambda value: 255 if value else 0) if request.inpaint_mode == "differential" else mask
    return Canvas(_filled(request, part, part_mask), image.size, part_mask, image, overlay, box)


def _filled(request: Request, image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the picture to encode; where noise or nothing takes its place, the autoencoder sees no edge either."""
    return image if request.inpainting_fill == 1 else masks.filled(image, mask)
