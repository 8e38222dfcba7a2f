"""Cached latents: every scene encoded once, with its captions as token ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL

from modules.training.captions import Scene
from modules.training.compose import GROUNDS, OBJECTS, colour_rows, compose
from modules.training.dataset import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """``latents`` [scenes, c, h, w] scaled to unit deviation; ``tokens`` [scenes, wordings, positions]; ``empty``
    [positions] are the ids of the empty caption."""

    latents: torch.Tensor
    tokens: torch.Tensor
    empty: torch.Tensor


def render(data: Dataset, scenes: Sequence[Scene], device: torch.device) -> torch.Tensor:
    """Return the pictures [n, 3, s, s] of ``scenes`` in -1..1."""
    rgba = data.rgba[[scene.index for scene in scenes]].to(device)
    grounds = colour_rows([scene.ground for scene in scenes], GROUNDS).to(device)
    colours = colour_rows([scene.colour for scene in scenes], OBJECTS).to(device)
    scale = torch.tensor([scene.scale for scene in scenes], device=device)
    centre = torch.tensor([scene.centre for scene in scenes], device=device)
    return compose(rgba, grounds, colours, scale, centre)


def batches(
    data: Dataset, scenes: Sequence[Scene], device: torch.device, count: int = 64
) -> Iterator[torch.Tensor]:
    """Yield the pictures of ``scenes``, up to ``count`` at a time."""
    for start in range(0, len(scenes), count):
        yield render(data, scenes[start : start + count], device)


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the means of the posterior [n, c, h, w] of batches of pictures, as float16 on the CPU, unscaled."""
    parts = []
    for number, pixels in enumerate(pictures):
        parts.append(model.encode(pixels.to(model.device)).latent_dist.mean.half().cpu())
        if number % 20 == 0:
            logger.info("encoded %d pictures", sum(map(len, parts)))
    return torch.cat(parts)


@torch.no_grad()
def standardise(model: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Fold the channels' means into the 1x1 convolutions and record the scaling factor; return scaled latents.

    Exact: ``quant_conv`` subtracts what ``post_quant_conv`` adds back. The pipelines know one number per model,
    ``scaling_factor``, so the relative spread of channels stays as the autoencoder has it. A second call on latents
    of the changed model changes nothing.
    """
    values = latents.float()
    shift = values.mean((0, 2, 3))
    channels = len(shift)
    spread = float((values - shift[:, None, None]).square().mean().sqrt())
    quant, post = model.quant_conv, model.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ shift.to(post.bias)
    quant.bias[:channels] -= shift.to(quant.bias)
    model.register_to_config(scaling_factor=1 / spread)
    return (values - shift[:, None, None]) / spread
