"""Diffusion models that make pictures larger: a small picture's tiles, each drawn anew four times as large."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modules.core.errors import InvalidModel, NotFound
from modules.core.settings import Settings
from modules.families import detect
from modules.families.base import Conditioning, Family, ImageCondition, Model, ModelInput
from modules.families.image_condition import COLOURS
from modules.imaging.upscalers import Occasion
from modules.library.files import ModelFile
from modules.library.headers import read_header
from modules.prompts import grammar, tags
from modules.prompts.schedule import schedule
from modules.runtime.placement import ENCODING_BYTES, coding_bytes, sampling_bytes
from modules.runtime.residence import cast_bytes
from modules.sampling import guidance
from modules.sampling.noise import picture_noise
from modules.sampling.runs import Run as Course
from modules.sampling.runs import model_calls, prepare
from modules.sampling.samplers import Denoised, find_sampler
from modules.upscaling import ncnn
from modules.upscaling.passes import Tiling, enlarged, through
from modules.upscaling.pixels import Picture, opened, shown
from modules.upscaling.tiles import Run, Tiles
from modules.upscaling.upscaler import Shelf

ROLE = "upscaler"
SAMPLER, SCHEDULE = "DPM++ 2M", "Karras"
# Side of a tile in pixels of the small picture: less shows the model hardly anything.
SMALLEST = 64
# The denoiser halves its picture three times.
MULTIPLE = 8
# What memory is reckoned by: the pixels that eight of to a side are one latent cell.
PIXELS_PER_CELL = 64


@dataclass(frozen=True)
class DiffusionUpscaler:
    """The upscaler in a diffusion model's file or folder; it is loaded when it is first used."""

    name: str
    file: ModelFile
    shelf: Shelf
    occasion: Occasion = Occasion()
    sampler: str = SAMPLER
    schedule: str = SCHEDULE

    def told(self, occasion: Occasion) -> DiffusionUpscaler:
        """Return the upscaler for ``occasion``: its prompts, its settings of steps, noise and guidance."""
        return dataclasses.replace(self, occasion=occasion)

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return ``image`` in ``width`` by ``height`` pixels; raises ``InvalidModel`` or ``OutOfMemory``."""
        return shown(self.enlarged(opened(image), (width, height)))

    def enlarged(self, picture: Picture, size: tuple[int, int]) -> Picture:
        """Return ``picture`` at ``size`` (width, height)."""
        scale = self._loaded()[1].variant.latent.factor
        return enlarged(picture, size, scale, self._pass)

    def drawing(self, width: int, height: int) -> Drawing:
        """Return how the tiles of a small picture of ``width`` by ``height`` pixels are drawn."""
        settings, (family, model) = self.occasion.settings, self._loaded()
        # Settings of samplers are those of generations; here the usual values hold.
        course = prepare(find_sampler(self.sampler)[0], self.schedule, settings.x4_upscaler_steps, family.space(model),
                         Settings())
        channels = model.variant.latent.channels
        noise = picture_noise((channels + COLOURS, height, width), [self.occasion.seed])[0]
        return Drawing(self, family, model, course, self._conds(family, model), noise[:channels], noise[channels:])

    def _loaded(self) -> tuple[Family, Model]:
        header = read_header(self.file.path)
        family, variant = detect(header)
        status = os.stat(self.file.path)
        size = sum(tensor.bytes for tensor in header.tensors.values())
        key = (ROLE, self.file.path, status.st_size, status.st_mtime_ns)
        return family, self.shelf.models.get(
            key, lambda: family.load(variant, self.file.path, None, self.shelf.placement), size)

    def _pass(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return ``pixels`` once through the model and at ``size``."""
        settings, (height, width) = self.occasion.settings, pixels.shape[:2]
        drawing = self.drawing(width, height)
        tiles = Tiles(settings.x4_upscaler_tile, settings.x4_upscaler_tile_overlap)
        tiling = Tiling(tiles, drawing.factor, SMALLEST, self.shelf.models.release)
        return through(self.name, pixels, size, tiling, lambda tiles: drawing.counted(tiles.count(width, height)))

    def _conds(self, family: Family, model: Model) -> list[Conditioning]:
        settings, occasion = self.occasion.settings, self.occasion
        self.shelf.models.need(model, ("text_encoder",), (ENCODING_BYTES,))
        with_prompt = settings.x4_upscaler_use_prompt
        texts = [said(text) if with_prompt else "" for text in (occasion.prompt, occasion.negative_prompt)]
        conds = family.encode(model, texts[:1], settings)
        if guidance.needs_uncond(settings.x4_upscaler_guidance) and texts[0] != texts[1]:
            conds += family.encode(model, texts[1:], settings, negative=True)
        return conds


@dataclass(frozen=True)
class Drawing:
    """How a picture's tiles are drawn one after the other: a run of the sampler each, beside the small picture.

    What they share: the conditionings, of which the second is the negative prompt's (missing where guidance has no use
    for it), and noise [channels, height, width] for the latent and on the small picture, so that where tiles overlap
    they begin from the same.
    """

    upscaler: DiffusionUpscaler
    family: Family
    model: Model
    course: Course
    conds: Sequence[Conditioning]
    noise: torch.Tensor
    on_picture: torch.Tensor

    @property
    def factor(self) -> int:
        """By what the model enlarges."""
        return self.model.variant.latent.factor

    def counted(self, tiles: int) -> Run:
        """Return what draws a tile; each call of the denoiser is told as one of those that all ``tiles`` take."""
        done, total, advance = 0, tiles * model_calls(self.course), self.upscaler.occasion.advance

        def called() -> None:
            nonlocal done
            done += 1
            advance(min(done, total), total)

        def run(tile: np.ndarray, left: int, top: int) -> np.ndarray:
            return self._drawn(tile, left, top, called)

        advance(0, total)
        return run

    def _drawn(self, tile: np.ndarray, left: int, top: int, called: Callable[[], None]) -> np.ndarray:
        height, width = tile.shape[:2]
        small = padded(torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None])
        place = np.s_[..., top:top + height, left:left + width]
        noise, on_picture = (padded(one[place][None]) for one in (self.noise, self.on_picture))
        latents = self._sampled(small, noise, on_picture, called)
        made = self._decoded(latents)[0, :, :height * self.factor, :width * self.factor]
        return np.asarray(made.permute(1, 2, 0))

    def _sampled(self, small: torch.Tensor, noise: torch.Tensor, on_picture: torch.Tensor,
                 called: Callable[[], None]) -> torch.Tensor:
        """Return the latent [1, channels, h, w] of what ``small`` [1, 3, h, w] becomes."""
        settings, course = self.upscaler.occasion.settings, self.course
        (height, width), level = small.shape[-2:], settings.x4_upscaler_noise_level
        concat = self.family.concat(self.model, ImageCondition(
            width * self.factor, height * self.factor, small, noise=on_picture, noise_level=level))
        self._place_denoiser(width * height)

        def predicted(x: torch.Tensor, sigma: float, cond: Conditioning) -> torch.Tensor:
            output = self.family.call(self.model, ModelInput(
                course.space.scale_input(x, sigma), sigma, course.space.timestep(sigma), 0, cond.context[None],
                ("cond",), (0,), added={"noise_level": torch.tensor([level])}, concat=concat))
            return torch.as_tensor(course.space.denoised(x, output.to(x), sigma))

        def denoise(x: torch.Tensor, sigma: float) -> Denoised:
            cond, *uncond = (predicted(x, sigma, one) for one in self.conds)
            called()
            if not uncond:
                return Denoised(cond, None)
            return Denoised(guidance.classifier_free(cond, uncond[0], settings.x4_upscaler_guidance), uncond[0])

        x = noise.to(self.upscaler.shelf.placement.device) * course.start_scale
        made = course.sampler.sample(denoise, x, course.sigmas, noise=None, space=course.space, **course.options)
        return torch.as_tensor(made * course.end_scale)

    def _place_denoiser(self, cells: int) -> None:
        shelf, unet = self.upscaler.shelf, self.model.modules["unet"]
        dtype = shelf.placement.denoiser
        cast = cast_bytes(unet, dtype)
        workings = tuple(working + cast for working in sampling_bytes(cells * PIXELS_PER_CELL, dtype.itemsize))
        shelf.models.need(self.model, ("unet",), workings)

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        pixels = latents.shape[-1] * latents.shape[-2] * self.factor**2
        workings = coding_bytes(pixels, self.model.modules["vae"].dtype.itemsize)
        at_once = self.upscaler.shelf.models.need(self.model, ("vae",), workings) == workings[0]
        return self.family.decode(self.model, latents, not at_once)


def said(prompt: str) -> str:
    """Return what a prompt says in the end: without tags and comments, its edits done, its parts together."""
    plain = tags.extract(grammar.strip_comments(prompt))[0]
    return ", ".join(schedule(part.text, 1)[-1].text.strip() for part in grammar.compose(plain))


def padded(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` [n, channels, h, w] with its last rows and columns repeated, up to what the denoiser halves."""
    height, width = tensor.shape[-2:]
    return torch.nn.functional.pad(tensor, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")


def is_diffusion(file: ModelFile) -> bool:
    """Return whether a file or folder is a diffusion model that makes pictures larger, from its header alone."""
    if Path(file.path).suffix == ncnn.SUFFIX:
        return False
    try:
        return detect(read_header(file.path))[1].role == ROLE
    except (InvalidModel, NotFound):
        return False
