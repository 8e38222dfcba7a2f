"""The random numbers of an NVIDIA card, made with numpy: Philox4x32-10 and Box-Muller as in cuRAND.

Philox: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF
UNIT = 2.0**-32
TURN = 2.0**-32 * float(np.float32(2 * math.pi))


def philox4x32(counter: Any, key: tuple[int, int], rounds: int = 10) -> Any:
    """Return the Philox block of each column of ``counter`` (uint32 [4, n]) under ``key``, as uint32 [4, n]."""
    a, b, c, d = (row.astype(np.uint64) for row in counter)
    for index in range(rounds):
        low, high = ((key[lane] + index * KEY_STEPS[lane]) & MASK for lane in (0, 1))
        first, second = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b, c, d = ((second >> 32) ^ b ^ np.uint64(low), second & MASK,
                      (first >> 32) ^ d ^ np.uint64(high), first & MASK)
    return np.stack([a, b, c, d]).astype(np.uint32)


def philox_normal(shape: tuple[int, ...], seed: int, offset: int) -> Any:
    """Return float32 normal numbers as ``torch.randn`` on an NVIDIA card gives them, the ``offset``-th call of a seed.

    Right for as many numbers as the card starts threads for (each thread's first of four); larger requests repeat
    the same scheme, as A1111's ``NV`` does. ``seed`` is 0 to 2^64 - 1.
    """
    count = math.prod(shape)
    counter: Any = np.zeros((4, count), dtype=np.uint32)
    counter[0] = offset & MASK
    counter[2] = np.arange(count, dtype=np.uint32)
    block = philox4x32(counter, (seed & MASK, (seed >> 32) & MASK))
    radius = np.sqrt(-2.0 * np.log(block[0] * UNIT + UNIT / 2))
    return (radius * np.sin(block[1] * TURN + TURN / 2)).astype(np.float32).reshape(shape)
