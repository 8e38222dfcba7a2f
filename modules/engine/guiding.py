"""Combining the predictions of one model call into one estimate of the clean latents.

Order: the direction from ``uncond`` to ``cond`` (plain, projected or CFG-Zero*), its thresholding by mimicry, the
picture's own direction for models that edit, perturbed predictions, rescaling, and thresholding of the clean latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from modules.core.guidance import Guidance, Thresholding
from modules.engine.rows import NEGATIVE, Row
from modules.sampling import guidance
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import Space

Parts = list[tuple[torch.Tensor, float]]


@dataclass(frozen=True)
class Predictions:
    """What one call gave: for each of ``rows`` a clean latent [channels, height, width] in ``x0``.

    ``x`` [pictures, channels, height, width] is what was denoised, at noise level ``sigma``.
    """

    x: torch.Tensor
    sigma: float
    rows: Sequence[Row]
    x0: Sequence[torch.Tensor]

    def parts(self, role: str) -> list[Parts]:
        """Return each picture's weighted predictions in a role."""
        found: list[Parts] = [[] for _ in range(len(self.x))]
        for row, x0 in zip(self.rows, self.x0, strict=True):
            if row.role == role:
                found[row.picture].append((x0, row.weight))
        return found

    def negatives(self) -> dict[str, torch.Tensor]:
        """Return the predictions [pictures, ...] of each negative role that took part."""
        present = {row.role for row in self.rows}
        return {role: _first(self.parts(role)) for role in NEGATIVE if role in present}


class Guider:
    """Carries out a ``Guidance``; keeps the average that adaptive projected guidance takes over calls."""

    def __init__(self, guided: Guidance, space: Space) -> None:
        self._guidance = guided
        self._space = space
        self._average: torch.Tensor | None = None

    def __call__(self, predictions: Predictions) -> Denoised:
        """Return the guided estimate of every picture, and the unconditional one where it is known."""
        guided, conds, negatives = self._guidance, predictions.parts("cond"), predictions.negatives()
        text_uncond = negatives.get("image_uncond", negatives.get("uncond"))
        uncond = negatives.get("uncond", text_uncond)
        x0 = self._guided(predictions, conds, text_uncond)
        if len(negatives) == 2:
            x0 = x0 + (negatives["image_uncond"] - negatives["uncond"]) * (guided.image_scale - 1)
        for role, perturbation in guided.perturbations().items():
            if any(row.role == role for row in predictions.rows):
                x0 = x0 + _shift(conds, predictions.parts(role)) * perturbation.scale
        if guided.rescale > 0:
            x0 = self._rescaled(predictions, x0, _as_one(conds, text_uncond))
        return Denoised(_within_range(x0, guided.thresholding), uncond)

    def _guided(self, predictions: Predictions, conds: list[Parts], uncond: torch.Tensor | None) -> torch.Tensor:
        """Return guidance by text alone; without a negative prediction it is the conditional one."""
        guided, cond = self._guidance, _as_one(conds, uncond)
        if uncond is None:
            return _composed(conds, None, guided.scale)
        if guided.zero_star:
            uncond = self._nearest(predictions, cond, uncond)
            conds = [[(one, 1.0)] for one in cond]
        at: Callable[[float], torch.Tensor] = partial(_composed, conds, uncond)
        if guided.projection:
            direction, self._average = guidance.projected(cond, uncond, guided.projection, self._average)
            at = partial(guidance.along, cond, direction)
        if not guided.mimicry:
            return at(guided.scale)
        return torch.as_tensor(
            guidance.mimicked(at(guided.scale), at(guided.mimicry.scale), guided.mimicry.percentile)
        )

    def _nearest(self, predictions: Predictions, cond: torch.Tensor, uncond: torch.Tensor) -> torch.Tensor:
        """Return ``uncond`` with the network's prediction for it times CFG-Zero*'s factor."""
        x, sigma, space = predictions.x, predictions.sigma, self._space
        output = guidance.nearest(space.output(x, cond, sigma), space.output(x, uncond, sigma))
        return torch.as_tensor(space.denoised(x, output, sigma))

    def _rescaled(self, predictions: Predictions, x0: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """Return ``x0`` with the network's prediction for it rescaled to the deviation of that for ``cond``."""
        x, sigma, space = predictions.x, predictions.sigma, self._space
        output = guidance.rescaled(space.output(x, x0, sigma), space.output(x, cond, sigma), self._guidance.rescale)
        return torch.as_tensor(space.denoised(x, output, sigma))


def first_predictions(predictions: Predictions) -> torch.Tensor:
    """Return each picture's first conditional prediction, which A1111 puts where the negative one was left out."""
    return _first(predictions.parts("cond"))


def _first(conds: list[Parts]) -> torch.Tensor:
    return torch.stack([parts[0][0] for parts in conds])


def _composed(conds: list[Parts], uncond: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Return plain guidance; where ``uncond`` was left out though it has weight, the first part stands in for it."""
    def one(index: int, parts: Parts) -> torch.Tensor:
        needed = guidance.needs_uncond(scale, [weight for _, weight in parts])
        other = uncond[index] if uncond is not None else parts[0][0] if needed else None
        return torch.as_tensor(guidance.compose(parts, other, scale))
    return torch.stack([one(index, parts) for index, parts in enumerate(conds)])


def _as_one(conds: list[Parts], uncond: torch.Tensor | None) -> torch.Tensor:
    """Return what all parts of each prompt say together, so that guidance by it at any scale is theirs."""
    if all(len(parts) == 1 and parts[0][1] == 1 for parts in conds):
        return _first(conds)
    return _composed(conds, uncond, 1.0)


def _shift(conds: list[Parts], disturbed: list[Parts]) -> torch.Tensor:
    """Return the weighted differences from the disturbed predictions to the conditional ones."""
    return torch.stack([
        torch.as_tensor(sum((good - worse) * weight
                            for (good, weight), (worse, _) in zip(parts, worse_parts, strict=True)))
        for parts, worse_parts in zip(conds, disturbed, strict=True)
    ])


def _within_range(x0: torch.Tensor, thresholding: Thresholding | None) -> torch.Tensor:
    if thresholding is None:
        return x0
    if thresholding.percentile is None:
        return x0.clamp(-thresholding.limit, thresholding.limit)
    return torch.as_tensor(guidance.dynamically_thresholded(x0, thresholding.percentile, thresholding.limit))
