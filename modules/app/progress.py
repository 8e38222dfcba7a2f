"""How far a job is and how long it will take, from its model calls alone."""

from __future__ import annotations

import math

from modules.core.result import Progress


class Meter:
    """Counts a job of ``pictures``, of which ``done`` were there before. Times are given, in seconds.

    The fraction is over all pictures and never falls. The time left is what remains at the mean pace since the
    first model call of this run, so that loading a model does not count and the figure stays calm.
    """

    def __init__(self, pictures: int, done: int = 0) -> None:
        self._pictures = max(1, pictures)
        self._size = 1
        self._first = done
        self._step = 0
        self._steps = 0
        self._phase = ""
        self._preview = 0
        self._fraction = min(1.0, done / self._pictures)
        self._began: tuple[float, float] | None = None
        self._pace = 0.0
        self._last = 0.0

    def batch(self, first: int, size: int) -> None:
        """A batch of ``size`` pictures begins with picture ``first``."""
        self._first, self._size, self._step = first, size, 0
        self._raise_to(first / self._pictures)

    def phase(self, text: str) -> None:
        """Something else than sampling goes on."""
        self._phase = text

    def step(self, done: float, total: int, now: float) -> None:
        """``done`` of ``total`` steps of the batch are complete."""
        self._phase, self._step, self._steps = "", math.floor(done + 1e-6), total
        size = min(self._size, self._pictures - self._first)
        self._raise_to((self._first + size * min(1.0, done / max(1, total))) / self._pictures)
        if self._began is None:
            self._began = (now, self._fraction)
        elif now > self._began[0]:
            self._pace = (self._fraction - self._began[1]) / (now - self._began[0])
        self._last = now

    def preview(self) -> int:
        """One more preview was made; return how many there are."""
        self._preview += 1
        return self._preview

    def progress(self, now: float) -> Progress:
        """Return where the job stands."""
        eta = None
        if self._pace > 0.0:
            eta = max(0.0, (1.0 - self._fraction) / self._pace - (now - self._last))
        return Progress(self._first, self._pictures, self._step, self._steps, self._fraction, eta, self._phase,
                        self._preview)

    def _raise_to(self, fraction: float) -> None:
        self._fraction = max(self._fraction, min(1.0, fraction))
