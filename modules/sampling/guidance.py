"""How conditional and unconditional predictions are combined; on tensors or arrays alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def classifier_free(cond: Any, uncond: Any, scale: float) -> Any:
    """Return ``uncond + scale * (cond - uncond)`` (Ho and Salimans 2022, equation 6 with scale = 1 + w).

    ``uncond`` may be None where ``needs_uncond`` says so.
    """
    return compose([(cond, 1.0)], uncond, scale)


def compose(conds: Sequence[tuple[Any, float]], uncond: Any, scale: float) -> Any:
    """Return ``uncond + sum of w * scale * (cond - uncond)`` over weighted predictions, the meaning of ``AND``.

    Liu et al. 2022 (Composable Diffusion), equation 11. ``conds`` holds at least one ``(prediction, weight)``;
    weights may be negative. ``uncond`` may be None where ``needs_uncond`` says so.
    """
    if uncond is None:
        return sum(cond * (weight * scale) for cond, weight in conds)
    return uncond + sum((cond - uncond) * (weight * scale) for cond, weight in conds)


def needs_uncond(scale: float, weights: Sequence[float] = (1.0,)) -> bool:
    """Return whether the unconditional prediction has any weight, ``1 - scale * sum of weights``, in the result."""
    return scale * sum(weights) != 1.0
