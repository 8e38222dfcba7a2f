"""The values of a plan's tensors: merged piece by piece, in the type to be written, checked to be numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from modules.core.errors import InvalidModel
from modules.merging.methods import Method, Operands
from modules.merging.plan import Step
from modules.merging.tensors import DTYPES, FLOATS, Stored
from modules.runtime.weights import is_finite

# Elements at once: pieces stay in the processor's cache, and the memory that is needed does not depend on the model.
PIECE = 1 << 18
LOW, HIGH = 0.01, 0.99


def pieces(step: Step, method: Method, bounds: tuple[float, float]) -> Iterator[Tensor]:
    """Yield the flat pieces of one tensor of the result. Raises ``InvalidModel`` where one is not a number."""
    dtype = DTYPES[step.info.dtype]
    for values in _computed(step, method, bounds):
        if step.info.dtype in FLOATS and values.numel() and not _fits(values, dtype):
            _explain(step.name, values, dtype)
        yield values.to(dtype).reshape(-1)


def _fits(values: Tensor, dtype: torch.dtype) -> bool:
    """Return whether all ``values`` are numbers that ``dtype`` can hold; looked at before the cast, which is faster."""
    if values.dtype == dtype:
        return is_finite(values)
    if values.dtype.itemsize == 1:
        values = values.to(torch.float16)
    low, high = torch.aminmax(values)
    largest = torch.finfo(dtype).max
    return bool((low >= -largest) & (high <= largest))


def _computed(step: Step, method: Method, bounds: tuple[float, float]) -> Iterator[Tensor]:
    if not step.edits:
        yield from _merged(step, method, bounds)
        return
    before = torch.cat([piece.reshape(-1) for piece in _merged(step, method, bounds)])
    before = before.to(compute_type(step)).reshape(step.info.shape)
    result = before.clone()
    for edit in step.edits:
        edit.add(result, before)
    yield result


def compute_type(step: Step) -> torch.dtype:
    """Return the type to compute a step in: float64 where the result is float32 or wider."""
    return torch.float64 if step.info.dtype in ("F32", "F64") else torch.float32


def _merged(step: Step, method: Method, bounds: tuple[float, float]) -> Iterator[Tensor]:
    count = step.info.elements
    if len(step.operands) == 1:
        for start in range(0, count, PIECE):
            yield step.operands[0].read(start, min(count, start + PIECE))
    elif step.channels:
        yield _first_channels(step, method, bounds)
    elif method.whole:
        yield method.merge(operands(step, bounds, lambda stored: stored.whole()))
    else:
        for start in range(0, count, PIECE):
            stop = min(count, start + PIECE)
            yield method.merge(operands(step, bounds, _piece(start, stop), start))


def _piece(start: int, stop: int) -> Callable[[Stored], Tensor]:
    return lambda stored: stored.read(start, stop)


def operands(step: Step, bounds: tuple[float, float], read: Callable[[Stored], Tensor], start: int = 0) -> Operands:
    """Return what the method of a step is given, read by ``read``, in the type to compute it in."""
    compute = compute_type(step)
    values = [read(operand).to(compute) for operand in step.operands]
    a, b, c = (*values, torch.empty(0, dtype=compute), torch.empty(0, dtype=compute))[:3]
    return Operands(a, b, c, step.alpha, step.beta, step.info.shape, start, step.seed, bounds)


def _first_channels(step: Step, method: Method, bounds: tuple[float, float]) -> Tensor:
    a = step.operands[0].whole()

    def read(stored: Stored) -> Tensor:
        return a[:, :step.channels] if stored is step.operands[0] else stored.whole()
    of = operands(step, bounds, read)
    shape = tuple(of.a.shape)
    merged = method.merge(Operands(of.a, of.b, of.c, of.alpha, of.beta, shape, 0, of.seed, of.bounds))
    return torch.cat([merged, a[:, step.channels:].to(merged.dtype)], dim=1)


def survey(steps: Sequence[Step], method: Method, advance: Callable[[int], None]) -> tuple[float, float]:
    """Return the limits, at 1 and 99 %, of what ``method`` looks for in all tensors first; ``advance`` gets bytes."""
    if method.survey is None:
        return 0.0, 1.0
    found = []
    for step in steps:
        if len(step.operands) > 1 and not step.channels:
            found.append(method.survey(operands(step, (0.0, 1.0), lambda stored: stored.whole())).reshape(-1).float())
        advance(step.info.bytes)
    if not found:
        return 0.0, 1.0
    values = torch.cat(found).sort().values
    last = len(values) - 1
    return float(values[round(last * LOW)]), float(values[round(last * HIGH)])


def _explain(name: str, values: Tensor, dtype: torch.dtype) -> None:
    if is_finite(values):
        raise InvalidModel(f"{name} holds values too large for {str(dtype).removeprefix('torch.')}.",
                           "Save it in bfloat16 or float32.")
    raise InvalidModel(f"{name} would hold NaN or infinity.", "One of the models is damaged; download it again.")
