"""spandrel, which knows the architectures of super-resolution networks, imported without torchvision.

It imports torchvision for two architectures alone: an inpainter, which is no upscaler, and a restorer of faces, which
needs one function. Beside a CPU build of torch, torchvision cannot be imported and breaks other libraries, so a
stand-in with that function takes its place while spandrel is imported, and is gone afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def spandrel() -> Any:
    """Return the library; the first call takes about a second."""
    if "spandrel" not in sys.modules:
        with _without_torchvision():
            import spandrel as library
        return library
    return sys.modules["spandrel"]


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Have the stand-in in place of torchvision for a while."""
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "torchvision"}
    sys.modules.update(_stand_in())
    try:
        yield
    finally:
        for name in _NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def _stand_in() -> dict[str, ModuleType]:
    found = {name: ModuleType(name) for name in _NAMES}
    found[_NAMES[-1]].__dict__.update(normalize=_normalize, rotate=_missing, InterpolationMode=object)
    return found


def _normalize(tensor: torch.Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Any:
    """Return ``tensor`` with each channel's ``mean`` taken away, in units of its ``std``; [..., channels, h, w]."""
    shift, scale = (tensor.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return tensor.sub_(shift).div_(scale) if inplace else (tensor - shift) / scale


def _missing(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("torchvision is not there; the architecture that needs it is no upscaler.")
