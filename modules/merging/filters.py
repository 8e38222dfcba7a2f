"""Filters over all dimensions of a tensor, edges mirrored: those of scipy's ``ndimage``."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

# How many elements are sorted at once.
PIECE = 1 << 18
GAUSSIAN_RADIUS = 4


def median(values: Tensor) -> Tensor:
    """Return the median of each element and its neighbours in every dimension."""
    if not values.ndim:
        return values
    result = torch.empty_like(values)
    rows = max(1, PIECE // max(1, values[0].numel()))
    for first in range(0, len(values), rows):
        wanted = torch.arange(first, min(first + rows, len(values)))
        result[first:first + rows] = _median_of(values, wanted)
    return result


def _median_of(values: Tensor, rows: Tensor) -> Tensor:
    around = [(-1, 0, 1) if size > 1 else (0,) for size in values.shape]
    shifted = []
    for steps in itertools.product(*around):
        piece = values[(rows + steps[0]).clamp(0, len(values) - 1)]
        for dimension, step in enumerate(steps[1:], 1):
            if step:
                size = values.shape[dimension]
                piece = piece.index_select(dimension, (torch.arange(size) + step).clamp(0, size - 1))
        shifted.append(piece)
    return torch.stack(shifted).median(0).values


def gaussian(values: Tensor, sigma: float = 1.0) -> Tensor:
    """Return ``values`` blurred along every dimension."""
    steps = torch.arange(-GAUSSIAN_RADIUS, GAUSSIAN_RADIUS + 1)
    weights = torch.exp(-0.5 * (steps.double() / sigma) ** 2)
    weights /= weights.sum()
    for dimension, size in enumerate(values.shape):
        if size == 1:
            continue
        blurred = torch.zeros_like(values)
        for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
            place = (torch.arange(size) + step) % (2 * size)
            mirrored = torch.minimum(place, 2 * size - 1 - place)
            blurred += values.index_select(dimension, mirrored) * weight
        values = blurred
    return values
