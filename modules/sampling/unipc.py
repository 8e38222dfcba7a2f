"""Coefficients of UniPC, the unified predictor-corrector (Zhao et al. 2023), in data prediction.

With lambda the half log signal-to-noise ratio, h the step in lambda and z = -h, one step of order p is
``x = sigma / sigma_0 * x_0 - alpha * (expm1(z) * m_0 + sum of weight_i * (m_i - m_0))``,
where m_i is the clean latent predicted at ``r_i = (lambda_i - lambda_0) / h`` and the corrector adds the node r = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Weights = tuple[float, ...]


def phi(order: int, z: float) -> float:
    """Return phi_k(z) = sum over j of z^j / (j + k)!, the functions of exponential integrators.

    ``phi_(k+1)(z) = (phi_k(z) - 1 / k!) / z`` loses its digits unless z is large, so elsewhere the series is summed.
    """
    if abs(z) < order + 2:
        return math.fsum(z**j / math.factorial(j + order) for j in range(3 * order + 40))
    value = math.exp(z)
    for k in range(order):
        value = (value - 1.0 / math.factorial(k)) / z
    return value


def predictor(variant: str, z: float, nodes: Sequence[float]) -> Weights:
    """Return the weights of the predictor's differences at ``nodes`` (r_1 ... r_(p-1), all below 0).

    ``variant`` is ``bh1``, ``bh2`` or ``vary_coeff``; of the first two order 2 takes the paper's simplified 1/2.
    """
    if not nodes:
        return ()
    if variant == "vary_coeff":
        return _varying(z, nodes)
    scale = _step_function(variant, z)
    if len(nodes) == 1:
        return (0.5 * scale / nodes[0],)
    return matched(z, nodes, scale)


def corrector(variant: str, z: float, nodes: Sequence[float]) -> Weights:
    """Return the weights of the corrector's differences at ``nodes`` and then at the new point, r = 1.

    For ``vary_coeff`` the new point's weight keeps one term only, as its authors' program does and all since.
    """
    complete = (*nodes, 1.0)
    if variant == "vary_coeff":
        return (*_varying(z, complete, rows=len(nodes))[:-1], _varying_last(z, complete))
    scale = _step_function(variant, z)
    if not nodes:
        return (0.5 * scale,)
    return matched(z, complete, scale)


def _step_function(variant: str, z: float) -> float:
    """B(h), equation 8: h itself or e^h - 1."""
    return z if variant == "bh1" else math.expm1(z)


def matched(z: float, nodes: Sequence[float], scale: float) -> Weights:
    """Return weights of the differences at ``nodes`` that integrate polynomials through them exactly.

    Equation 9: sum_i a_i r_i^(k-1) B = k! z phi_(k+1)(z) for k = 1 ... n, over r_i to weigh plain differences;
    ``scale`` is B, on which the result depends by rounding only.
    """
    count = len(nodes)
    powers = np.vander(np.asarray(nodes, dtype=np.float64), count, increasing=True).T
    moments = [math.factorial(k) * z * phi(k + 1, z) / scale for k in range(1, count + 1)]
    solution = np.linalg.solve(powers, np.asarray(moments, dtype=np.float64))
    return tuple(float(a) * scale / node for a, node in zip(solution, nodes, strict=True))


def _varying(z: float, nodes: Sequence[float], rows: int | None = None) -> Weights:
    """Appendix C: weights z phi_(k+2)(z) times row k of the inverse Taylor matrix, for the first ``rows`` rows."""
    inverse = _inverse_taylor(nodes)
    used = len(nodes) if rows is None else rows
    totals = [sum(z * phi(k + 2, z) * inverse[k, i] for k in range(used)) for i in range(len(nodes))]
    return tuple(float(total) / node for total, node in zip(totals, nodes, strict=True))


def _varying_last(z: float, nodes: Sequence[float]) -> float:
    count = len(nodes)
    return z * phi(count + 1, z) * float(_inverse_taylor(nodes)[max(count - 2, 0), -1])


def _inverse_taylor(nodes: Sequence[float]) -> Any:
    count = len(nodes)
    powers = np.vander(np.asarray(nodes, dtype=np.float64), count, increasing=True)
    return np.linalg.inv(powers / [float(math.factorial(k)) for k in range(1, count + 1)])
