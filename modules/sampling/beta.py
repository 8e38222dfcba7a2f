"""The beta distribution: its cumulative function and the inverse of that, in float64."""

from __future__ import annotations

import math

MAX_TERMS, MAX_STEPS = 500, 200
SMALLEST = 1e-300
PRECISION = 1e-15


def beta_quantile(share: float, alpha: float, beta: float) -> float:
    """Return the value within 0 to 1 below which ``share`` (0 to 1) of the beta distribution lies.

    ``alpha`` and ``beta`` are above 0. Newton's method, kept within a bracket that shrinks; right to about 1e-15.
    """
    if share <= 0 or share >= 1:
        return float(share >= 1)
    if share > beta_share(0.5, alpha, beta):
        return 1 - _lower_quantile(1 - share, beta, alpha)
    return _lower_quantile(share, alpha, beta)


def _lower_quantile(share: float, alpha: float, beta: float) -> float:
    """The quantile where it is at most one half, there with a relative precision."""
    low, high = 0.0, 0.5
    value = math.exp(min((math.log(share) + math.log(alpha) + _log_beta(alpha, beta)) / alpha, math.log(0.25)))
    if value < SMALLEST:
        return value  # the first term alone; the density there is beyond floating point
    for _ in range(MAX_STEPS):
        missing = share - beta_share(value, alpha, beta)
        low, high = (value, high) if missing > 0 else (low, value)
        following = value + missing / _density(value, alpha, beta) if value > SMALLEST else high
        following = following if low < following < high else (low + high) / 2
        if abs(following - value) <= PRECISION * value:
            break
        value = following
    return value


def beta_share(value: float, alpha: float, beta: float) -> float:
    """Return the regularised incomplete beta function I_value(alpha, beta), for a value within 0 to 1.

    By its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22).
    """
    if value <= 0 or value >= 1:
        return float(value >= 1)
    if value > (alpha + 1) / (alpha + beta + 2):
        return 1 - beta_share(1 - value, beta, alpha)
    front = alpha * math.log(value) + beta * math.log1p(-value) - _log_beta(alpha, beta)
    return math.exp(front) / alpha / _fraction(value, alpha, beta)


def _fraction(value: float, alpha: float, beta: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)) by Lentz's algorithm."""
    total = numerator = 1.0
    denominator = 0.0
    for term in range(1, MAX_TERMS):
        half = term // 2
        if term % 2:
            part = -(alpha + half) * (alpha + beta + half) / ((alpha + 2 * half) * (alpha + 2 * half + 1))
        else:
            part = half * (beta - half) / ((alpha + 2 * half - 1) * (alpha + 2 * half))
        denominator = 1 / _away_from_zero(1 + part * value * denominator)
        numerator = _away_from_zero(1 + part * value / numerator)
        total *= numerator * denominator
        if abs(numerator * denominator - 1) < PRECISION:
            break
    return total


def _away_from_zero(number: float) -> float:
    return number if abs(number) > SMALLEST else SMALLEST


def _density(value: float, alpha: float, beta: float) -> float:
    return math.exp((alpha - 1) * math.log(value) + (beta - 1) * math.log1p(-value) - _log_beta(alpha, beta))


def _log_beta(alpha: float, beta: float) -> float:
    return math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
