"""How the predictions of one model call are combined, as data that requests and plugins decide."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from modules.core.errors import InvalidRequest

LAYER = re.compile(r"mid|(mid|down|up)(\.\d{1,3}){1,3}")
LAYER_HINT = "Layers are named mid, down.1, up.1.0 and so on: side, level, attention."


@dataclass(frozen=True)
class Mimicry:
    """Brings each channel into the range that guidance of ``scale`` would have (sd-dynamic-thresholding).

    What lies beyond the share ``percentile`` (0 to 1) of a channel's magnitudes is cut off.
    """

    scale: float = 7.0
    percentile: float = 1.0


@dataclass(frozen=True)
class Thresholding:
    """Keeps clean latents within ``limit`` (Imagen): cut off, or scaled down by a percentile of their magnitudes.

    ``percentile`` (0 to 1) None is the first, static thresholding. The limit is the magnitude that TAESD gives the
    latents of Stable Diffusion.
    """

    limit: float = 3.0
    percentile: float | None = None


@dataclass(frozen=True)
class Projection:
    """How adaptive projected guidance changes the direction from ``uncond`` to ``cond``.

    ``eta`` is the share that is kept of its part along ``cond``, ``threshold`` the largest norm that it may have in
    a picture (0 for any), ``momentum`` (negative as a rule) the factor of its average over earlier calls.
    """

    eta: float = 0.0
    threshold: float = 0.0
    momentum: float = 0.0


@dataclass(frozen=True)
class ZeroStar:
    """CFG-Zero*: the best multiple of the unconditional prediction; none at all in the first ``zero_calls`` calls."""

    zero_calls: int = 0


@dataclass(frozen=True)
class Perturbation:
    """A worse prediction for the same prompt, from which guidance moves away with ``scale``; 0 is off.

    ``layers`` of the network are disturbed: ``mid``, ``down.1`` or, for one of a level, ``up.1.0``, and for one block
    of that, ``up.1.0.2``. It takes part from the share ``start`` of a pass's model calls to ``end`` (0 to 1). Raises
    ``InvalidRequest`` for other names.
    """

    scale: float = 0.0
    layers: tuple[str, ...] = ("mid",)
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.scale == 0:
            return
        if not self.layers:
            raise InvalidRequest("No layer to disturb is named.", LAYER_HINT)
        for layer in self.layers:
            if not LAYER.fullmatch(layer):
                raise InvalidRequest(f"{layer[:40]!r} is not the name of a layer.", LAYER_HINT)

    def active(self, call: int, calls: int) -> bool:
        """Return whether it takes part in model call ``call`` (from 0) of ``calls``."""
        return self.scale != 0 and self.start <= call / max(calls, 1) < self.end


@dataclass(frozen=True)
class Guidance:
    """How the predictions of one model call are combined.

    ``scale`` is that of classifier-free guidance, ``image_scale`` that of the picture for models that edit one.
    ``rescale`` (0 to 1) brings back the deviation of the conditional prediction. ``projection`` and ``zero_star``
    replace plain guidance where they are given, ``mimicry`` and ``thresholding`` keep latents in range. ``perturbed``
    turns self-attention into the identity (PAG), ``smoothed`` blurs its queries with a Gaussian of ``blur`` cells
    (SEG; infinite for their mean), ``skipped`` leaves transformer blocks out (SLG).
    """

    scale: float = 7.0
    image_scale: float = 1.5
    rescale: float = 0.0
    projection: Projection | None = None
    zero_star: ZeroStar | None = None
    mimicry: Mimicry | None = None
    thresholding: Thresholding | None = None
    perturbed: Perturbation = Perturbation()
    smoothed: Perturbation = Perturbation()
    blur: float = math.inf
    skipped: Perturbation = Perturbation()

    def perturbations(self) -> dict[str, Perturbation]:
        """Return the perturbations by the role of their rows."""
        return {"perturbed": self.perturbed, "smoothed": self.smoothed, "skipped": self.skipped}
