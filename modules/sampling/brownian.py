"""A Brownian path that is the same wherever and in whatever order it is looked at.

The path over an interval is fixed by a seed: its end is drawn first, then the middle of every half, quarter, ... by
the Brownian bridge, each from its own seed (Li et al. 2020, section 4, the virtual Brownian tree). Seeds, rounding
and order of operations are those of torchsde's ``BrownianTree``, so its paths are reproduced bit by bit; unlike it,
any source of normal numbers will do.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

DIGITS = 6
POOL_SIZE = 24
CACHED_NODES = 64


@dataclass(frozen=True)
class Node:
    """One dyadic part of the interval: its ends, and its place in the tree (``index`` of 2^``depth``)."""

    start: float
    end: float
    depth: int = 0
    index: int = 0

    @property
    def middle(self) -> float:
        """Where it is halved, to ``DIGITS`` decimals."""
        return round(0.5 * (self.end + self.start), DIGITS)

    @property
    def halves(self) -> tuple[Node, Node]:
        """Its left and right part."""
        depth, index = self.depth + 1, 2 * self.index
        return Node(self.start, self.middle, depth, index), Node(self.middle, self.end, depth, index + 1)


class BrownianPath:
    """A Brownian motion over ``start`` to ``end``; ``normal(seed)`` gives the unit normal array of a 32-bit seed."""

    def __init__(self, start: float, end: float, seed: int, normal: Callable[[int], Any]) -> None:
        self._root = Node(round(start, DIGITS), round(end, DIGITS))
        self._length = end - start
        self._seed = seed
        self._normal = normal
        self._increment = functools.lru_cache(maxsize=CACHED_NODES)(self._increment_of)

    def increment(self, low: float, high: float) -> Any:
        """Return W(high) - W(low), clamped to the interval; times are told apart to six decimals."""
        low, high = (min(max(round(time, DIGITS), self._root.start), self._root.end) for time in (low, high))
        if low >= high:
            return self._normal(0) * 0.0
        parts = [self._increment(lineage) for lineage in _covering((self._root,), low, high)]
        return functools.reduce(operator.add, parts)

    def _increment_of(self, lineage: tuple[Node, ...]) -> Any:
        if len(lineage) == 1:
            return self._normal(self._node_seed(None)) * math.sqrt(self._length)
        parent, node = lineage[-2:]
        whole = self._increment(lineage[:-1])
        left, right = parent.middle - parent.start, parent.end - parent.middle
        share = 1 / (parent.end - parent.start)
        bridge = left * whole * share + math.sqrt(left * right * share) * self._normal(self._node_seed(parent))
        return bridge if node.index % 2 == 0 else whole - bridge

    def _node_seed(self, node: Node | None) -> int:
        key = () if node is None else (node.index, node.depth)
        words = 3 if node is None else 4
        return int(np.random.SeedSequence(self._seed, spawn_key=key, pool_size=POOL_SIZE).generate_state(words)[0])


def _covering(lineage: tuple[Node, ...], low: float, high: float) -> Iterator[tuple[Node, ...]]:
    """The fewest parts that make up low to high, from left to right, each after all the parts that it lies in."""
    node = lineage[-1]
    if low == node.start and high == node.end:
        yield lineage
        return
    left, right = node.halves
    if low < left.end:
        yield from _covering((*lineage, left), low, min(high, left.end))
    if high > right.start:
        yield from _covering((*lineage, right), max(low, right.start), high)
