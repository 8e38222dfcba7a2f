"""Which attention backend computes what: measured once for each class of shapes, on the first real call of it.

Nothing is measured where there is one exact backend (a CPU), nor where settings or flags name one. A backend that
fails or whose result is not a number is dropped with one line in the log, and the next one computes the same call.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from modules.runtime.attention_backends import (
    LAST_RESORT,
    SDP,
    AttentionBackend,
    Core,
    ShapeClass,
    backends,
    preferred_by,
    shape_class,
    usable,
)

logger = logging.getLogger(__name__)

AUTOMATIC = "Automatic"
# How much faster than those before it a backend must be to be taken: below that, noise would decide, and with it the
# last bits of the picture.
MARGIN = 0.05
REPEATS, ROUNDS = 5, 3
# Tried in this order, whatever their speed, where nothing else works.
RESORTS = (SDP.name, "sub-quadratic", LAST_RESORT.name)

Run = Callable[[], torch.Tensor]


class Trial(NamedTuple):
    """A backend that computed a call correctly, and the seconds that one such call takes."""

    backend: AttentionBackend
    core: Core
    seconds: float


def fastest(trials: Sequence[Trial], margin: float = MARGIN) -> Trial:
    """Return the first trial that no other beats by more than ``margin`` of its own time."""
    limit = min(trial.seconds for trial in trials) * (1 + margin)
    return next(trial for trial in trials if trial.seconds <= limit)


class AttentionChooser:
    """Computes attention with the best backend; one belongs to each placement.

    ``candidates`` come in order of preference. ``preferred`` names the one that flags ask for. ``seconds`` times a
    function on the device, ``free`` returns its free bytes.
    """

    def __init__(
        self, candidates: Sequence[AttentionBackend] = (SDP,), preferred: str = "",
        seconds: Callable[[Run], float] = lambda run: 0.0, free: Callable[[], int] = lambda: 1 << 30,
    ) -> None:
        self._candidates = {backend.name: backend for backend in candidates}
        self._from_flags = preferred
        self._preferred = ""
        self._seconds = seconds
        self._free = free
        self._chosen: dict[ShapeClass, tuple[str, Core]] = {}
        self._dropped: set[tuple[str, ShapeClass]] = set()
        self._told: set[str] = set()
        self.core: Core = self.attend
        self.prefer(AUTOMATIC)

    def prefer(self, setting: str) -> None:
        """Follow the setting ``cross_attention_optimization``: a backend's name, perhaps with words after " - ".

        Automatic leaves it to flags, then to measurement. What is not usable on this machine counts as Automatic.
        """
        name = setting.partition(" - ")[0]
        wanted = self._from_flags if name == AUTOMATIC else name
        if wanted and wanted not in self._candidates:
            self._tell(f"Attention by {wanted} is not available here; another is chosen automatically.")
            wanted = ""
        if wanted != self._preferred:
            self._preferred = wanted
            self._chosen.clear()
        self.core = SDP.bind(0) if self._tiers()[0] == [SDP] else self.attend

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the attended values [rows, heads, tokens, width]; raises where no backend can compute them."""
        shape = shape_class(query, key)
        chosen = self._chosen.get(shape)
        if chosen is None:
            return self._choose(shape, (query, key, value), {})
        name, core = chosen
        try:
            return core(query, key, value)
        except Exception as error:
            if _is_out_of_memory(error):  # the engine frees some and calls again
                raise
            return self._choose(shape, (query, key, value), {name: error})

    def chosen(self, query: torch.Tensor, key: torch.Tensor) -> str:
        """Return the name of the backend that computes such a call; empty where none was chosen yet."""
        if self.core != self.attend:
            return SDP.name
        return self._chosen.get(shape_class(query, key), ("", None))[0]

    def _choose(
        self, shape: ShapeClass, tensors: Sequence[torch.Tensor], failures: dict[str, Exception]
    ) -> torch.Tensor:
        """Compute with each backend of the first tier in which one works, and keep the fastest of them."""
        free = self._free()
        judged = all(map(_finite, tensors))
        for tier in self._tiers():
            able = [backend for backend in tier if self._may(backend, shape, free) and backend.name not in failures]
            trials = []
            for backend in able:
                core = backend.bind(free)
                try:
                    output = _checked(core, tensors, judged)
                    seconds = self._seconds(partial(core, *tensors)) if len(able) > 1 else 0.0
                except Exception as error:  # noqa: BLE001 - whatever it raises, another can compute the same
                    failures[backend.name] = error
                else:
                    trials.append(Trial(backend, core, seconds))
            if trials and judged:
                self._keep(shape, fastest(trials), failures)
            if trials:
                return output
        raise next(iter(failures.values()), RuntimeError(f"No attention backend can compute {shape}."))

    def _tiers(self) -> list[list[AttentionBackend]]:
        """Return what is tried first, and what only where all before it fail; within a tier, speed decides."""
        found = self._candidates
        automatic = [backend for backend in found.values() if backend.automatic]
        resorts = [[found[name]] for name in RESORTS if name in found]
        preferred = [[found[self._preferred]]] if self._preferred in found else []
        return [*preferred, automatic, *resorts]

    def _may(self, backend: AttentionBackend, shape: ShapeClass, free: int) -> bool:
        too_large = backend.quadratic and shape.score_bytes() > free
        return backend.suits(shape) and not too_large and (backend.name, shape) not in self._dropped

    def _keep(self, shape: ShapeClass, best: Trial, failures: Mapping[str, Exception]) -> None:
        """Remember the choice; what failed while another worked is at fault itself, unless memory was short."""
        self._chosen[shape] = (best.backend.name, best.core)
        logger.debug("Attention by %s for %s", best.backend.name, shape)
        for name, error in failures.items():
            if isinstance(error, ImportError):
                self._candidates.pop(name, None)
            if not _is_out_of_memory(error):
                self._dropped.add((name, shape))
                self._tell(f"Attention by {name} failed and is not used for heads of width {shape.width}: "
                           f"{_reason(error)}.")

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            logger.warning(line)


def open_attention(
    kind: str, capability: tuple[int, int], flags: Mapping[str, Any], free: Callable[[], int]
) -> AttentionChooser:
    """Return the chooser for a device of ``kind`` (cuda, rocm, xpu, mps, cpu) under the command line's flags."""
    found = [backend for backend in backends(flags) if usable(backend, kind, capability)]
    if kind == "mps":  # a matrix of scores that Metal cannot hold would end the process
        found = [dataclasses.replace(backend, quadratic=True) if backend is SDP else backend for backend in found]
    return AttentionChooser(found, preferred_by(flags), cuda_seconds if kind in ("cuda", "rocm") else seconds, free)


def cuda_seconds(run: Run) -> float:
    """Return the seconds of one of several calls in a row, by events; launching counts where it is the slower part."""
    return min(_event_seconds(run) for _ in range(ROUNDS))


def _event_seconds(run: Run) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(REPEATS):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000 / REPEATS


def seconds(run: Run) -> float:
    """Return the seconds of one of several calls in a row by the clock, on whatever accelerator there is."""
    return min(_clock_seconds(run) for _ in range(ROUNDS))


def _clock_seconds(run: Run) -> float:
    torch.accelerator.synchronize()
    started = time.perf_counter()
    for _ in range(REPEATS):
        run()
    torch.accelerator.synchronize()
    return (time.perf_counter() - started) / REPEATS


def _checked(core: Core, tensors: Sequence[torch.Tensor], judged: bool) -> torch.Tensor:
    """Return what ``core`` computes; raises ``ArithmeticError`` where that is not finite but ought to be."""
    output = core(*tensors)
    if judged and not _finite(output):
        raise ArithmeticError("its result is not a number (NaN)")
    return output


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError)
