"""Coefficients of multistep methods: integrals of the Lagrange polynomials through the levels already visited."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

QUADRATURE_POINTS = 24


def weights(nodes: Sequence[float], start: float, end: float) -> tuple[float, ...]:
    """Return the integral from ``start`` to ``end`` of the Lagrange polynomial of each of ``nodes``.

    The variable-step Adams-Bashforth method where ``start`` is one of them (Hairer et al. 1993, III.5).
    """
    return transformed_weights(nodes, start, end, float)


def transformed_weights(
    nodes: Sequence[float], start: float, end: float, time: Callable[[float], float]
) -> tuple[float, ...]:
    """Return the integrals over sigma from ``start`` to ``end`` of Lagrange polynomials in ``time(sigma)``.

    ``nodes`` are levels; polynomials of degree 47 in sigma are integrated exactly, others to about single precision.
    """
    roots, masses = quadrature(QUADRATURE_POINTS)
    half = (end - start) / 2
    points = np.array([time(start + half * (1 + root)) for root in roots])
    times = [time(node) for node in nodes]
    return tuple(float(masses @ _lagrange(times, index, points)) * half for index in range(len(nodes)))


def deis_time(sigma: float, lowest: float = 0.002, highest: float = 80.0, lowest_time: float = 1e-3) -> float:
    """Return the time of the linear VP diffusion at ``sigma`` (Song et al. 2021, equation 29), solved for the time.

    Its betas are those with which times ``lowest_time`` to 1 are the levels ``lowest`` to ``highest``, Karras et al.
    2022's, as in the programs that apply DEIS to their models.
    """
    low, high = math.log1p(lowest * lowest), math.log1p(highest * highest)
    slope = 2 * (low / lowest_time - high) / (lowest_time - 1)
    offset = high - slope / 2
    return (math.sqrt(offset * offset + 2 * slope * math.log1p(sigma * sigma)) - offset) / slope


@functools.cache
def quadrature(points: int) -> tuple[Any, Any]:
    """Return the nodes within -1 to 1 and the weights of Gauss and Legendre's rule, float64 [points] each."""
    return np.polynomial.legendre.leggauss(points)


def _lagrange(nodes: Sequence[float], index: int, points: Any) -> Any:
    others = [node for place, node in enumerate(nodes) if place != index]
    return math.prod(((points - node) / (nodes[index] - node) for node in others), start=np.ones_like(points))
