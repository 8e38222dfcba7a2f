"""How conditional and unconditional predictions are combined.

``classifier_free`` and ``compose`` take tensors or arrays alike; the others take tensors [pictures, ...] of any
floating type and treat each picture by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modules.core.guidance import Projection

TINY = 1e-8


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


def rescaled(guided: Any, cond: Any, share: float) -> Any:
    """Return ``guided`` with, to a ``share`` of 0 to 1, the standard deviation of ``cond`` in each picture.

    Lin et al. 2023 (Common Diffusion Noise Schedules and Sample Steps are Flawed), equations 15 and 16; meant for
    what the network predicts, noise or velocity.
    """
    matched = guided * (_deviation(cond) / _deviation(guided))
    return matched * share + guided * (1 - share)


def dynamically_thresholded(x0: Any, percentile: float, limit: float = 1.0) -> Any:
    """Return clean pictures cut off at a percentile (0 to 1) of their magnitudes and brought within ``limit``.

    Saharia et al. 2022 (Imagen), section 2.3 and appendix A.32, for data in -limit..limit; a picture whose percentile
    is within it is only cut off.
    """
    cut = x0.abs().flatten(1).quantile(percentile, dim=1).clamp(min=limit)
    cut = cut.reshape(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-cut, cut) * (limit / cut)


def mimicked(guided: Any, mimic: Any, percentile: float = 1.0) -> Any:
    """Return ``guided`` brought, channel by channel, into the range that guidance of a lower scale, ``mimic``, has.

    The dynamic thresholding of sd-dynamic-thresholding with its defaults: around each channel's mean, magnitudes
    beyond the ``percentile`` (0 to 1; or the range to mimic, if that is wider) are cut off and the rest is scaled
    down. Latents are clean, [pictures, channels, ...].
    """
    full, mimic = guided.flatten(2), mimic.flatten(2)
    mean = full.mean(dim=2, keepdim=True)
    centred = full - mean
    wanted = (mimic - mimic.mean(dim=2, keepdim=True)).abs().amax(dim=2, keepdim=True)
    present = centred.abs().quantile(percentile, dim=2, keepdim=True)
    limit = present.maximum(wanted)
    return (centred.clamp(-limit, limit) * (wanted / limit) + mean).reshape(guided.shape)


def projected(cond: Any, uncond: Any, projection: Projection, average: Any = None) -> tuple[Any, Any]:
    """Return the direction of adaptive projected guidance and the average to hand to the next call (None to the first).

    Sadat et al. 2024 (Eliminating Oversaturation and Artifacts of High Guidance Scales), algorithm 1, for clean
    latents. Follow it with ``along``; with ``eta`` 1 and the other fields 0 that is classifier-free guidance.
    """
    average = cond - uncond + (0 if average is None else average * projection.momentum)
    direction = average
    if projection.threshold > 0:
        direction = direction * (projection.threshold / (_norm(direction) + TINY)).clamp(max=1.0)
    parallel = cond * (_dot(direction, cond) / (_dot(cond, cond) + TINY))
    return direction - parallel + parallel * projection.eta, average


def along(cond: Any, direction: Any, scale: float) -> Any:
    """Return ``cond + (scale - 1) * direction``, guidance from the conditional prediction on."""
    return cond + direction * (scale - 1)


def nearest(cond: Any, uncond: Any) -> Any:
    """Return ``uncond`` times the factor that brings it nearest to ``cond``: where CFG-Zero* guides from.

    Fan et al. 2025, equation 10, for what the network predicts.
    """
    return uncond * (_dot(cond, uncond) / (_dot(uncond, uncond) + TINY))


def _dot(one: Any, other: Any) -> Any:
    return (one * other).sum(dim=tuple(range(1, one.ndim)), keepdim=True)


def _norm(direction: Any) -> Any:
    return _dot(direction, direction).sqrt()


def _deviation(prediction: Any) -> Any:
    return prediction.std(dim=tuple(range(1, prediction.ndim)), keepdim=True)
