"""The one owner of loaded models: which stay, which go, and where their components are."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from modules.runtime.weights import nbytes


class Held(Protocol):
    """A loaded model: its components by name."""

    modules: Mapping[str, Any]


M = TypeVar("M", bound=Held)


class Models:
    """Keeps the models that were used last, as many as ``budget_bytes`` allow; the one in use always."""

    def __init__(self, budget_bytes: int = 0) -> None:
        self._budget = budget_bytes
        self._models: OrderedDict[Hashable, Held] = OrderedDict()

    def get(self, key: Hashable, load: Callable[[], M], expected_bytes: int = 0) -> M:
        """Return the model of ``key``, loading it if it is not held.

        The least recently used go first, before ``load`` runs, so that the old and the new never add up where
        ``expected_bytes`` (0 where unknown) does not fit beside what is held. What ``load`` raises passes through.
        """
        if key not in self._models:
            self._make_room(expected_bytes)
            self._models[key] = load()
        self._models.move_to_end(key)
        self._make_room(0, keep=1)
        return self._models[key]  # type: ignore[return-value]

    def held_bytes(self) -> int:
        """Return the bytes of all models held."""
        return sum(sum(component_bytes(model).values()) for model in self._models.values())

    def keys(self) -> tuple[Hashable, ...]:
        """Return the keys of the models held, the least recently used first."""
        return tuple(self._models)

    def free(self) -> None:
        """Forget every model and give the memory back to the system."""
        self._models.clear()
        release_memory()

    def release(self) -> None:
        """Give back memory that is cached but not in use."""
        release_memory()

    def _make_room(self, coming: int, keep: int = 0) -> None:
        dropped = False
        while len(self._models) > keep and self.held_bytes() + coming > self._budget:
            self._models.popitem(last=False)
            dropped = True
        if dropped:
            release_memory()


def component_bytes(model: Held) -> dict[str, int]:
    """Return the bytes of each component of ``model``."""
    return {name: nbytes(module) for name, module in model.modules.items()}


@contextmanager
def resident(model: Held, names: Collection[str], device: torch.device, others: torch.device) -> Iterator[None]:
    """Have the components ``names`` on ``device`` and all others on ``others`` for a while; then as it was."""
    before = {name: _device(module) for name, module in model.modules.items()}
    try:
        # Those that leave go first, to make room for those that come.
        for name in sorted(model.modules, key=lambda name: name in names):
            _move(model.modules[name], device if name in names else others)
        yield
    finally:
        for name in sorted(before, key=lambda name: name not in names):
            _move(model.modules[name], before[name])


def _device(module: torch.nn.Module) -> torch.device:
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))


def _move(module: torch.nn.Module, device: torch.device) -> None:
    if _device(module) != device:
        module.to(device)


def release_memory() -> None:
    """Collect garbage, empty the device's cache and, on Linux, return freed heap pages to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
