"""Schedules that were optimised for one model and published as numbers: Align Your Steps and GITS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from modules.core.errors import InvalidRequest
from modules.sampling.spaces import Published, Space

Tables = Mapping[Published, tuple[float, ...]]

# Sabour et al. 2024, "Align Your Steps"; as published for ten steps.
ALIGN_YOUR_STEPS: Tables = MappingProxyType({
    "sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
})
# Chen et al. 2024, "On the Trajectory Regularity of ODE-based Diffusion Sampling", for the same number of steps.
GITS: Tables = MappingProxyType({
    "sd1": (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029),
    "sdxl": (14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029),
})
# Align Your Steps for 31 steps.
ALIGN_YOUR_STEPS_32: Tables = MappingProxyType({
    "sd1": (
        14.615, 11.23951352, 8.64363081, 6.64729424, 5.57250862, 4.71648546, 3.99196065, 3.5195609, 3.13490466,
        2.79228788, 2.48773628, 2.21663865, 1.97508351, 1.7793172, 1.61475335, 1.46540953, 1.314849, 1.16642497,
        1.03475547, 0.91573744, 0.80748169, 0.71202361, 0.621739, 0.53065202, 0.4529096, 0.37491455, 0.27461819,
        0.2011529, 0.14105873, 0.06682881, 0.03166121, 0.015,
    ),
    "sdxl": (
        14.615, 11.1491618, 8.50522127, 6.48827151, 5.43707402, 4.60398619, 3.89854704, 3.27407457, 2.74396527,
        2.29968659, 1.95448514, 1.67108715, 1.42878152, 1.23181009, 1.06789649, 0.92579443, 0.80290886, 0.69660121,
        0.60436903, 0.52852552, 0.46773344, 0.41393379, 0.36258186, 0.31008517, 0.26518925, 0.22326461, 0.17653877,
        0.13959192, 0.10587381, 0.05519369, 0.02877334, 0.015,
    ),
})


def align_your_steps(steps: int, sigma_min: float, sigma_max: float, space: Space) -> tuple[float, ...]:
    """Return the levels of Align Your Steps, ignoring the ends; see ``fitted``."""
    return fitted(ALIGN_YOUR_STEPS, steps, space)


def align_your_steps_gits(steps: int, sigma_min: float, sigma_max: float, space: Space) -> tuple[float, ...]:
    """Return the levels found by GITS, ignoring the ends; see ``fitted``."""
    return fitted(GITS, steps, space)


def align_your_steps_32(steps: int, sigma_min: float, sigma_max: float, space: Space) -> tuple[float, ...]:
    """Return the levels of Align Your Steps for 31 steps, ignoring the ends; see ``fitted``."""
    return fitted(ALIGN_YOUR_STEPS_32, steps, space)


def fitted(tables: Tables, steps: int, space: Space) -> tuple[float, ...]:
    """Return ``steps`` levels and 0 along the table that ``space`` names, even in place and log-linear in sigma.

    As the publication interpolates them. Raises ``InvalidRequest`` for a flow, for whose levels none was made.
    """
    if space.prediction == "flow":
        raise InvalidRequest("Align Your Steps has no levels for a flow model.", "Use another schedule.")
    table = tables[space.published]
    stride = (len(table) - 1) / max(steps - 1, 1)
    return (*(_interpolated(table, index * stride) for index in range(steps)), 0.0)


def _interpolated(table: tuple[float, ...], place: float) -> float:
    low = min(int(place), len(table) - 2)
    weight = place - low
    if weight in (0.0, 1.0):
        return table[low + int(weight)]
    return math.exp((1 - weight) * math.log(table[low]) + weight * math.log(table[low + 1]))
