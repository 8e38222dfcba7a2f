"""Matrices as products of two narrow ones, the best there are of a rank (Eckart and Young 1936)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1. Differences of models have spectra that fall slowly, so the
# range is found with some columns to spare and several passes.
SPARE, PASSES = 32, 6
# From this many times fewer ranks than there are on, the randomised way is faster.
FEWER = 4


@dataclass(frozen=True)
class Spectrum:
    """The largest singular values [r] of a matrix, descending, with their vectors [out, r] and [r, n]."""

    left: Tensor
    values: Tensor
    right: Tensor

    def first(self, rank: int) -> Spectrum:
        """Return the first ``rank`` of them."""
        return Spectrum(self.left[:, :rank], self.values[:rank], self.right[:rank])


def spectrum(matrix: Tensor, rank: int) -> Spectrum:
    """Return the ``rank`` largest singular values of ``matrix`` [out, n] (float32 or float64) with their vectors.

    From all of them, or where they are few in comparison from a random sketch of the range, whose seed is fixed.
    """
    if FEWER * (rank + SPARE) >= min(matrix.shape):
        return Spectrum(*torch.linalg.svd(matrix, full_matrices=False)).first(rank)
    source = torch.Generator().manual_seed(0)
    drawn = torch.randn(matrix.shape[1], rank + SPARE, dtype=matrix.dtype, generator=source)
    base = torch.linalg.qr(matrix @ drawn).Q
    for _ in range(PASSES):
        base = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ base).Q).Q
    left, values, right = torch.linalg.svd(base.T @ matrix, full_matrices=False)
    return Spectrum(base @ left, values, right).first(rank)


def of_product(up: Tensor, down: Tensor, rank: int) -> Spectrum:
    """Return the ``rank`` largest singular values of ``up`` [out, r] times ``down`` [r, n], never multiplied out."""
    (left, one), (right, other) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    inner = Spectrum(*torch.linalg.svd(one @ other.T, full_matrices=False)).first(rank)
    return Spectrum(left @ inner.left, inner.values, inner.right @ right.T)


def rank_for(values: Tensor, total: float, energy: float) -> int:
    """Return how many of ``values`` keep a share ``energy`` of ``total``, the sum of all squares; at least 1."""
    if energy >= 1.0:
        return len(values)
    kept = values.double().square().cumsum(0)
    return min(len(values), int((kept < energy * total).sum()) + 1)


def factors(found: Spectrum, clamp: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return [out, r] and [r, n] whose product ``found`` is, equally large, so that half precision suffices for both.

    The values above the share ``clamp`` of all are cut off.
    """
    root = found.values.sqrt()
    up, down = found.left * root, root[:, None] * found.right
    if clamp >= 1.0:
        return up, down
    sizes = torch.cat([up.flatten(), down.flatten()]).abs()
    limit = float(sizes.kthvalue(max(1, round(clamp * sizes.numel()))).values)
    return up.clamp(-limit, limit), down.clamp(-limit, limit)


def joined(pairs: list[tuple[float, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return [out, sum of r] and [sum of r, n] whose product is the sum of all products, each so many times.

    The weights are shared out over both sides.
    """
    roots = [(abs(scale) ** 0.5, -1.0 if scale < 0 else 1.0) for scale, _, _ in pairs]
    ups = [up * (root * sign) for (root, sign), (_, up, _) in zip(roots, pairs, strict=True)]
    downs = [down * root for (root, _), (_, _, down) in zip(roots, pairs, strict=True)]
    return torch.cat(ups, dim=1), torch.cat(downs)
