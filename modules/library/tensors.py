"""The description of a tensor that every reader of headers returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DTYPE_BITS: Mapping[str, int] = MappingProxyType({
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's type and shape. ``dtype`` is safetensors' name (``F16``, ``BF16``, ``F8_E4M3``, ``I64`` ...)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size of the data in bytes, rounded up for types smaller than a byte."""
        return -(-self.elements * DTYPE_BITS[self.dtype] // 8)
