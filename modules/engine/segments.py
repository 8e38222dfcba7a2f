"""A pass's segments: models that take over from each other in the middle of one run of the sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from modules.core.plan import Segment
from modules.engine.denoiser import Denoiser
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import Space

Opened = Callable[[Segment, int], Denoiser]
"""Loads a segment's model and returns its denoiser, whose calls are counted on from the given number."""

Share = Callable[[float, int], float]
"""Maps a noise level and the number of model calls made to how much of the schedule is done (0 to 1)."""


class Relay:
    """The denoiser of a pass: of its segments, the one whose turn it is.

    The sampler does not know, so what a multistep sampler remembers is kept. A segment that has begun goes on even if
    noise is added again.
    """

    def __init__(
        self, first: Denoiser, later: Sequence[Segment], opened: Opened, share: Share, calls_per_step: int = 1
    ) -> None:
        self._current: Denoiser | None = first
        self._later = list(later)
        self._opened = opened
        self._share = share
        self._calls_per_step = calls_per_step
        self.calls = 0

    def __call__(self, x: torch.Tensor, sigma: float) -> Denoised:
        """Return the estimate of the clean latents for ``x`` [pictures, channels, height, width]."""
        due = [place for place, segment in enumerate(self._later) if self._due(segment, sigma)]
        if due:
            # Nothing holds the model before, so that it may leave memory while the next one is loaded.
            self._current = None
            self._current = self._opened(self._later[due[-1]], self.calls)
            del self._later[:due[-1] + 1]
        assert self._current is not None
        denoised = self._current(x, sigma)
        self.calls = self._current.calls
        return denoised

    def _due(self, segment: Segment, sigma: float) -> bool:
        if segment.first_step is not None:
            return self.calls >= segment.first_step * self._calls_per_step
        return self._share(sigma, self.calls) >= segment.start


def share_of_timesteps(space: Space) -> Share:
    """Return the share by the training timestep nearest to the noise level, ``(999 - t) / 1000`` in A1111."""
    table = space.sigmas

    def share(sigma: float, calls: int) -> float:
        nearest = min(range(len(table)), key=lambda place: abs(table[place] - sigma))
        return (len(table) - 1 - nearest) / len(table)
    return share


def share_of_calls(total: int) -> Share:
    """Return the share by the model calls made, as A1111 before 1.8."""
    return lambda sigma, calls: calls / max(total, 1)
