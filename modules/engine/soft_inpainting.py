"""Soft inpainting: kept and repainted parts melt into each other, and what is shown is what came out differently.

The method is AUTOMATIC1111's (1.8): latents are blended by direction and length while sampling, and the result is laid
over the picture by how far apart both are, cell by cell.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from modules.core.plan import SoftBlend
from modules.engine.masking import Mix

# The neighbourhood in which differences are evened out, in cells of the latent.
DEVIATION, RADIUS = 1.5, 2
# Keeps quotients finite where a latent, or what half of the difference is measured by, vanishes.
TINY = 1e-5


def mix(soft: SoftBlend) -> Mix:
    """Return the function that blends two latents where a mask and a noise level say how much of each."""
    def mixed(ours: torch.Tensor, theirs: torch.Tensor, keep: torch.Tensor, sigma: float) -> torch.Tensor:
        share = (1 - keep) ** (sigma**soft.bias * soft.preservation)
        straight = theirs * (1 - share) + ours * share
        # Averaged vectors are shorter than either, which looks washed out: the length is averaged on its own.
        wanted = (_length(theirs) ** soft.boost * (1 - share) + _length(ours) ** soft.boost * share) ** (1 / soft.boost)
        return (straight * (wanted / (_length(straight) + TINY))).to(straight)
    return mixed


def opacity(original: torch.Tensor, made: torch.Tensor, keep: torch.Tensor, soft: SoftBlend) -> list[np.ndarray]:
    """Return for each picture how much of what was made is shown: float64 [height, width] of the latent, in 0..1.

    ``original`` and ``made`` are latents [pictures, channels, height, width], ``keep`` [pictures, 1, height, width].
    """
    distances = _length(made - original)[:, 0].cpu().numpy()
    masks = 1 - (1 - keep[:, 0].double().cpu().numpy()).clip(0, 1) ** (soft.preservation / 2)
    return [_shown(distance, mask, soft) for distance, mask in zip(distances, masks, strict=True)]


def evened(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return for each cell the mean of its neighbourhood between two percentiles (0 to 1), weighted by a Gaussian.

    At least as much as one cell weighs in the middle goes into the mean; beyond the edges there is nothing.
    """
    height, width = values.shape
    padded = np.pad(values, RADIUS)
    inside = np.pad(np.ones_like(values), RADIUS)
    offsets = [(y, x) for y in range(-RADIUS, RADIUS + 1) for x in range(-RADIUS, RADIUS + 1)
               if math.hypot(y, x) <= RADIUS]
    cuts = [(slice(RADIUS + y, RADIUS + y + height), slice(RADIUS + x, RADIUS + x + width)) for y, x in offsets]
    weights = np.stack([inside[cut] * math.exp(-(y * y + x * x) / DEVIATION**2)
                        for cut, (y, x) in zip(cuts, offsets, strict=True)])
    around = np.stack([padded[cut] for cut in cuts])
    order = np.argsort(around, axis=0)
    around, weights = (np.take_along_axis(one, order, axis=0) for one in (around, weights))
    upper = np.cumsum(weights, axis=0)
    total = upper[-1]
    first, last = _window(total * low, total * high, total)
    taken = (np.minimum(upper, last) - np.maximum(upper - weights, first)).clip(0)
    return np.asarray((around * taken).sum(0) / taken.sum(0))


def _window(first: np.ndarray, last: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = (1 - (last - first)).clip(0) / 2
    first, last = first - missing, last + missing
    over, under = (last - total).clip(0), (-first).clip(0)
    return (first - over).clip(0), np.minimum(last + under, total)


def _shown(distance: np.ndarray, mask: np.ndarray, soft: SoftBlend) -> np.ndarray:
    # The upper end spreads differences to their surroundings, the middle removes what stands alone.
    difference = evened(evened(distance, 0.9, 1.0), 0.25, 0.75)
    weight = 0.5 * (1 - soft.influence) + mask * soft.influence
    half = soft.threshold * weight / (1 + TINY - weight)
    with np.errstate(over="ignore"):
        kept = 1 / (1 + (difference / np.maximum(half, TINY)) ** soft.contrast)
    return 1 - kept**3 * (kept * (kept * 6 - 15) + 10)


def _length(latents: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean length over the channels, in 64 bits for the sake of high powers."""
    return torch.linalg.vector_norm(latents.double(), dim=1, keepdim=True)
