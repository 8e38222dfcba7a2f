"""The methods of merging, one function each, of the values of one tensor in three models.

Names are those of ``core.merge.METHODS``. Weighted sum and add difference are A1111's; tensor sum, triple sum, sum
twice, train difference, smooth add and both cosines SuperMerger's (hako-mikan); similarity add difference and multiply
difference bayesian-merger's (s1dlx). SLERP: Shoemake 1985; TIES: Yadav et al. 2023; DARE: Yu et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from modules.merging.filters import gaussian, median

TRAINED = 1.8
NEARLY_PARALLEL = 0.9995


@dataclass(frozen=True)
class Operands:
    """Values of one tensor in models A, B and C, in the type to compute in; a missing model is an empty tensor.

    They are the whole tensor, or a flat piece of it whose first element is number ``start``; ``shape`` is that of the
    whole. ``bounds`` are the limits of what ``Method.survey`` found in all tensors, ``seed`` is the tensor's own.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    alpha: float
    beta: float
    shape: tuple[int, ...]
    start: int = 0
    seed: int = 0
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Method:
    """``merge`` gives the merged values, of the operands' shape.

    Without ``whole`` it is given pieces. With ``survey`` all tensors but the autoencoder's are looked at first, and
    the autoencoder is left as it is. ``same`` tells which operand the result is, ``a`` or ``b``, if it is one.
    """

    merge: Callable[[Operands], Tensor]
    whole: bool = False
    survey: Callable[[Operands], Tensor] | None = None
    same: Callable[[float, float], str] = lambda alpha, beta: ""


def weighted_sum(of: Operands) -> Tensor:
    """Return A (1 − α) + B α."""
    return torch.lerp(of.a, of.b, of.alpha)


def add_difference(of: Operands) -> Tensor:
    """Return A + (B − C) α."""
    return of.a + (of.b - of.c) * of.alpha


def tensor_sum(of: Operands) -> Tensor:
    """Return B's rows from β on, a share α of them, and A's others; past the last row it goes on with the first."""
    rows = of.shape[0] if of.shape else 1
    width = math.prod(of.shape[1:])
    row = torch.arange(of.start, of.start + of.a.numel()).div(max(1, width), rounding_mode="floor")
    if of.alpha + of.beta <= 1.0:
        from_b = (row >= int(rows * of.beta)) & (row < int(rows * (of.alpha + of.beta)))
    else:
        from_b = (row < int(rows * (of.alpha + of.beta - 1.0))) | (row >= int(rows * of.beta))
    return torch.where(from_b.reshape(of.a.shape), of.b, of.a)


def triple_sum(of: Operands) -> Tensor:
    """Return A (1 − α − β) + B α + C β."""
    return of.a * (1.0 - of.alpha - of.beta) + of.b * of.alpha + of.c * of.beta


def sum_twice(of: Operands) -> Tensor:
    """Return the weighted sum by β of C and the weighted sum by α of A and B."""
    return torch.lerp(torch.lerp(of.a, of.b, of.alpha), of.c, of.beta)


def train_difference(of: Operands) -> Tensor:
    """Return A + 1.8 α sign(B − C) |B − C| |B − A| / (|B − C| + |B − A|)."""
    difference, distance = of.b - of.c, (of.b - of.a).abs()
    total = difference.abs() + distance
    scale = torch.where(total > 0, distance / total, 0.0)
    return of.a + difference * scale * (of.alpha * TRAINED)


def smooth_add(of: Operands) -> Tensor:
    """Return A + α times B − C after a median filter of 3 elements and a Gaussian of 1."""
    return of.a + gaussian(median(of.b - of.c)) * of.alpha


def cosine_b(of: Operands) -> Tensor:
    """Return B (1 − k) + A k, with k the similarity within its bounds, less α."""
    return _by_similarity(of, of)


def cosine_a(of: Operands) -> Tensor:
    """Return what Cosine B does, with the similarity of directions alone."""
    return _by_similarity(of, directed(of))


def _by_similarity(of: Operands, compared: Operands) -> Tensor:
    low, high = of.bounds
    k = ((similarity(compared.a, compared.b) - low) / (high - low if high > low else 1.0) - of.alpha).clamp(0.0, 1.0)
    return of.b * (1.0 - k) + of.a * k


def directed(of: Operands) -> Operands:
    """Return the operands that Cosine A compares: each column of length one."""
    a, b = (torch.nn.functional.normalize(one, dim=0) if one.ndim else one for one in (of.a, of.b))
    return Operands(a, b, of.c, of.alpha, of.beta, of.shape, of.start, of.seed, of.bounds)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean of the cosine of each column of ``a`` and ``b`` and that of the whole tensors."""
    flat_a, flat_b = a.flatten(), b.flatten()
    whole = flat_a @ flat_b / (flat_a.norm() * flat_b.norm())
    columns = torch.nn.functional.cosine_similarity(a, b, dim=0) if a.ndim else whole
    return (columns + whole).nan_to_num(0.0) / 2


def similarity_add_difference(of: Operands) -> Tensor:
    """Return (1 − s) (A + α (B − C)) + s ((1 − α/2) A + α/2 B).

    With s = β (AB / max(|A|, |B|)² + 1) / 2, and β where A and B are 0.
    """
    largest = torch.maximum(of.a.abs(), of.b.abs())
    alike = (((of.a * of.b / largest**2 + 1.0) * of.beta) / 2).nan_to_num(of.beta)
    added, summed = of.a + of.alpha * (of.b - of.c), torch.lerp(of.a, of.b, of.alpha / 2)
    return torch.lerp(added, summed, alike)


def multiply_difference(of: Operands) -> Tensor:
    """Return C + |A − C|^(1 − α) |B − C|^α with the sign of the weighted sum by β of A and B, less C."""
    size = (of.a - of.c).abs() ** (1.0 - of.alpha) * (of.b - of.c).abs() ** of.alpha
    return of.c + torch.copysign(size, torch.lerp(of.a, of.b, of.beta) - of.c)


def slerp(of: Operands) -> Tensor:
    """Return the point at α on the arc from A to B, on the line where they are nearly parallel."""
    lengths = of.a.norm(), of.b.norm()
    if min(lengths) == 0:
        return weighted_sum(of)
    dot = float((of.a.flatten() @ of.b.flatten() / (lengths[0] * lengths[1])).clamp(-1.0, 1.0))
    if abs(dot) > NEARLY_PARALLEL:
        return weighted_sum(of)
    angle = math.acos(dot)
    return (of.a * math.sin((1.0 - of.alpha) * angle) + of.b * math.sin(of.alpha * angle)) / math.sin(angle)


def ties(of: Operands) -> Tensor:
    """Return C + α times the mean of the largest of A − C and B − C (a share β of each) that have the elected sign."""
    changes = torch.stack([_trimmed(of.a - of.c, of.beta), _trimmed(of.b - of.c, of.beta)])
    elected = changes.sum(0).sign()
    agreeing = (changes.sign() == elected) & (changes != 0)
    mean = (changes * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
    return of.c + mean * of.alpha


def dare(of: Operands) -> Tensor:
    """Return A + α (B − C) / β on a random share β of the elements, A on the others; the seed decides which."""
    if of.beta <= 0.0:
        return of.a
    kept = uniform(of.start, of.a.numel(), of.seed).reshape(of.a.shape) < of.beta
    return of.a + torch.where(kept, (of.b - of.c) * (of.alpha / of.beta), 0.0)


def uniform(start: int, count: int, seed: int) -> Tensor:
    """Return numbers from 0 to 1 for the elements from ``start`` on, each by its own number.

    A hash of 32 bits twice over (lowbias32, Wellons 2018), so that pieces of any size give the same.
    """
    bits = _mixed(torch.arange(start, start + count).to(torch.int32))
    bits = _mixed(bits.add_(_signed(seed)))
    return bits.bitwise_and_(0x7FFFFFFF).float() / 2**31


def _mixed(bits: Tensor) -> Tensor:
    """Mix ``bits`` in place, taken as unsigned numbers of 32 bits."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        shifted = (bits >> shift).bitwise_and_((1 << (32 - shift)) - 1)
        bits.bitwise_xor_(shifted).mul_(_signed(factor))
    return bits


def _signed(bits: int) -> int:
    bits %= 2**32
    return bits - 2**32 if bits >= 2**31 else bits


def _trimmed(change: Tensor, share: float) -> Tensor:
    count = max(0, min(change.numel(), round(change.numel() * share)))
    if count == change.numel():
        return change
    if count == 0:
        return torch.zeros_like(change)
    sizes = change.abs()
    least = sizes.flatten().kthvalue(change.numel() - count + 1).values
    return torch.where(sizes >= least, change, 0.0)


def _ends(alpha: float, beta: float) -> str:
    return {0.0: "a", 1.0: "b"}.get(alpha, "")


def _start(alpha: float, beta: float) -> str:
    return "a" if alpha == 0.0 else ""


def _no_share(alpha: float, beta: float) -> str:
    return "a" if alpha == 0.0 and beta == 0.0 else ""


def _either(alpha: float, beta: float) -> str:
    return _ends(alpha, beta) if beta == 0.0 else ""


METHODS: Mapping[str, Method] = MappingProxyType({
    "no_interpolation": Method(lambda of: of.a, same=lambda alpha, beta: "a"),
    "weighted_sum": Method(weighted_sum, same=_ends),
    "add_difference": Method(add_difference, same=_start),
    "tensor_sum": Method(tensor_sum, same=_start),
    "triple_sum": Method(triple_sum, same=_no_share),
    "sum_twice": Method(sum_twice, same=_either),
    "train_difference": Method(train_difference, same=_start),
    "smooth_add": Method(smooth_add, whole=True, same=_start),
    "cosine_a": Method(cosine_a, whole=True, survey=lambda of: similarity(directed(of).a, directed(of).b)),
    "cosine_b": Method(cosine_b, whole=True, survey=lambda of: similarity(of.a, of.b)),
    "similarity_add_difference": Method(similarity_add_difference),
    "multiply_difference": Method(multiply_difference),
    "slerp": Method(slerp, whole=True, same=_ends),
    "ties": Method(ties, whole=True),
    "dare": Method(dare, same=_start),
})
