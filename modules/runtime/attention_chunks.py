"""Exact attention in pieces, for devices without a fused kernel: memory is bounded by the piece, not by the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# What one score takes at the widest moment: itself, its exponential in the wider type, and that in the type of the
# values again.
SCORE_COPIES = 3
# The part of free memory that scores may take before they are cut, as A1111's sub-quadratic attention has it.
DEFAULT_THRESHOLD = 0.7
DEFAULT_QUERIES = 1024


@dataclass(frozen=True)
class Chunking:
    """How sub-quadratic attention is cut: ``queries`` at a time, ``keys`` at a time (0: by memory).

    Keys stay whole while all scores take no more than ``threshold`` (0 to 1) of the free memory.
    """

    queries: int = DEFAULT_QUERIES
    keys: int = 0
    threshold: float = DEFAULT_THRESHOLD


def sub_quadratic(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, chunking: Chunking, free: int
) -> torch.Tensor:
    """Return attention as Rabe & Staats (2021, arXiv:2112.05682) compute it; ``free`` is in bytes.

    ``query`` [rows, heads, tokens, width], ``key`` and ``value`` [rows, heads, keys, width].
    """
    return chunked(query, key, value, chunking.queries, key_chunk(query, key, chunking, free))


def split(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, free: int) -> torch.Tensor:
    """Return attention of as many queries at a time as half of ``free`` bytes allow; shapes as ``sub_quadratic``."""
    size = max(1, free // 2 // (SCORE_COPIES * _score_bytes(query) * key.shape[-2]))
    return chunked(query, key, value, size, key.shape[-2])


def by_heads(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int = 2) -> torch.Tensor:
    """Return attention of ``heads`` heads at a time; shapes as ``sub_quadratic``."""
    by_head = [tensor.flatten(0, 1).split(heads) for tensor in (query, key, value)]
    parts = [chunked(q, k, v, query.shape[-2], key.shape[-2]) for q, k, v in zip(*by_head, strict=True)]
    return torch.cat(parts).unflatten(0, query.shape[:2])


def in_float32(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, free: int) -> torch.Tensor:
    """Return ``sub_quadratic`` attention computed in 32-bit floats, where scores in half precision overflow."""
    return sub_quadratic(query.float(), key.float(), value.float(), Chunking(), free).to(query.dtype)


def key_chunk(query: torch.Tensor, key: torch.Tensor, chunking: Chunking, free: int) -> int:
    """Return how many keys are taken at a time; never fewer than the square root of their number on its own."""
    keys = key.shape[-2]
    if chunking.keys:
        return min(chunking.keys, keys)
    budget = int(free * chunking.threshold)
    one_key = _score_bytes(query)
    if query.shape[-2] * keys * one_key <= budget:
        return keys
    fitting = budget // (SCORE_COPIES * one_key * min(chunking.queries, query.shape[-2]))
    return min(keys, max(math.isqrt(keys), fitting))


def chunked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, queries: int, keys: int
) -> torch.Tensor:
    """Return attention [..., tokens, width], ``queries`` by ``keys`` scores at a time."""
    scaled = query * query.shape[-1] ** -0.5
    parts = [_one_chunk(part, key, value, keys) for part in scaled.split(queries, dim=-2)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _one_chunk(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, size: int) -> torch.Tensor:
    """Sum exp(score - highest) and its values over chunks of keys, rescaled as the highest score grows."""
    kind = torch.promote_types(query.dtype, torch.float32)
    highest = torch.full((*query.shape[:-1], 1), -math.inf, dtype=kind, device=query.device)
    weight = torch.zeros_like(highest)
    attended = torch.zeros((*query.shape[:-1], value.shape[-1]), dtype=kind, device=query.device)
    for keys, values in zip(key.split(size, dim=-2), value.split(size, dim=-2), strict=True):
        scores = (query @ keys.mT).to(kind)
        now = torch.maximum(highest, scores.detach().amax(-1, keepdim=True))
        scores.sub_(now).exp_()
        shrunk = (highest - now).exp()
        weight = weight * shrunk + scores.sum(-1, keepdim=True)
        attended = attended * shrunk + scores.to(values.dtype) @ values
        highest = now
    return (attended / weight).to(query.dtype)


def _score_bytes(query: torch.Tensor) -> int:
    """Return the bytes of one query's score for one key, over all rows and heads."""
    return query.shape[0] * query.shape[1] * query.dtype.itemsize
