"""The one owner of loaded models: which stay, which go, and which of their components are on the device."""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from modules.runtime.device import DeviceInfo, Placement, available, vram_budget
from modules.runtime.placement import Component, Held, schedule
from modules.runtime.residence import Copy, bring, is_away, layer_bytes, layers_of, send_home, stream
from modules.runtime.weights import nbytes


class LoadedModel(Protocol):
    """A loaded model: its components by name."""

    modules: Mapping[str, Any]


M = TypeVar("M", bound=LoadedModel)


@dataclass(frozen=True)
class Accelerator:
    """A device with memory of its own, of which ``budget`` bytes may be used.

    ``copy`` puts a tensor there; ``free`` reads how many bytes nobody uses, whatever the budget says. Without
    ``keep`` components leave as soon as another is needed, even where both would fit.
    """

    budget: int
    copy: Copy
    free: Callable[[], int]
    keep: bool = True


def accelerator(placement: Placement, info: DeviceInfo, flags: Mapping[str, Any]) -> Accelerator | None:
    """Return the device of ``placement`` under the flags of ``vram_budget``; None where main memory is all there is.

    With ``always_offload_from_vram`` nothing is kept there.
    """
    device = placement.device
    if placement.home == device:
        return None
    return Accelerator(vram_budget(info, flags), lambda tensor: tensor.to(device), lambda: available(device),
                       keep=not flags.get("always_offload_from_vram"))


class Models:
    """Keeps the models that were used last, as many as ``budget_bytes`` of main memory allow; the one in use always.

    With an ``accelerator``, what a phase needs is moved there, and nothing is there that was never needed; without
    one, everything computes where it was loaded.
    """

    def __init__(self, budget_bytes: int = 0, accelerator: Accelerator | None = None) -> None:
        self._budget = budget_bytes
        self._accelerator = accelerator
        self._models: OrderedDict[Hashable, LoadedModel] = OrderedDict()
        self._clock = itertools.count()
        self._used: weakref.WeakKeyDictionary[torch.nn.Module, int] = weakref.WeakKeyDictionary()
        self._streams: weakref.WeakKeyDictionary[torch.nn.Module, list[Any]] = weakref.WeakKeyDictionary()

    def get(self, key: Hashable, load: Callable[[], M], expected_bytes: int = 0, limit: int = 0) -> M:
        """Return the model of ``key``, loading it if it is not held; at most ``limit`` are held (0: any number).

        The least recently used go first, before ``load`` runs, so that the old and the new never add up where
        ``expected_bytes`` (0 where unknown) does not fit beside what is held. What ``load`` raises passes through.
        """
        if key not in self._models:
            self._make_room(expected_bytes, most=limit - 1 if limit else None)
            self._models[key] = load()
        self._models.move_to_end(key)
        self._make_room(0, keep=1, most=limit or None)
        return self._models[key]  # type: ignore[return-value]

    def need(self, model: LoadedModel, names: Collection[str], workings: Sequence[int] = (0,)) -> int:
        """Bring the components ``names`` of ``model`` to where they compute, and return the bytes left for the work.

        ``workings`` are what the work may take, the best first; the first that is possible is taken. What does not
        fit stays at home layer by layer and is brought when it is called. Where the device has less memory than it
        said, everything else leaves and it is tried once more. Raises ``OutOfMemory`` naming the least budget.
        """
        if self._accelerator is None:
            return workings[0]
        wanted = [module for name, module in model.modules.items() if name in names]
        self._used.update(dict.fromkeys(wanted, next(self._clock)))
        try:
            return self._arrange(self._accelerator, wanted, workings)
        except torch.OutOfMemoryError:
            self._send_home(self._used)
            release_memory()
        return self._arrange(self._accelerator, wanted, workings)

    def held_bytes(self) -> int:
        """Return the bytes of all models held."""
        return sum(sum(component_bytes(model).values()) for model in self._models.values())

    def device_bytes(self) -> int:
        """Return the bytes of weights on the accelerator."""
        return sum(part.held.bytes for part in self._parts())

    def keys(self) -> tuple[Hashable, ...]:
        """Return the keys of the models held, the least recently used first."""
        return tuple(self._models)

    def free(self) -> None:
        """Forget every model and give the memory back to the system."""
        self._send_home(self._used)
        self._models.clear()
        release_memory()

    def release(self) -> None:
        """Give back memory that is cached but not in use, and have nothing on the device but what was needed last."""
        last = max(self._used.values(), default=0)
        self._send_home(module for module, used in self._used.items() if used < last)
        release_memory()

    def rest(self) -> None:
        """Have nothing on the device between requests, where nothing is to be kept there."""
        if self._accelerator is not None and not self._accelerator.keep:
            self._send_home(self._used)
            release_memory()

    def _arrange(self, accelerator: Accelerator, wanted: Sequence[torch.nn.Module], workings: Sequence[int]) -> int:
        parts = {part.held.component.key: part for part in self._parts()}
        held = [part.held for part in parts.values() if part.held.layers]
        budget = min(accelerator.budget, sum(item.bytes for item in held) + accelerator.free())
        components = [parts[module].held.component for module in wanted]
        plan = schedule(held, components, workings, budget, accelerator.keep)
        for move in plan.moves:
            parts[move.key].take(move.layers, accelerator.copy)
        for module in wanted:
            self._stream([layer for layer in parts[module].layers if not is_away(layer)], module, accelerator.copy)
        return plan.working

    def _stream(self, layers: Sequence[torch.nn.Module], module: torch.nn.Module, copy: Copy) -> None:
        """Have ``layers`` of ``module``, and no others, brought when they are called."""
        for handle in self._streams.pop(module, ()):
            handle.remove()
        self._streams[module] = stream(layers, copy)

    def _parts(self) -> list[_Part]:
        """Return every component that was ever needed, the least recently used first, as its tensors say."""
        return [_part(module) for module in sorted(self._used, key=self._used.__getitem__)]

    def _send_home(self, modules: Iterable[torch.nn.Module]) -> None:
        for module in list(modules):
            for layer in layers_of(module):
                send_home(layer)

    def _make_room(self, coming: int, keep: int = 0, most: int | None = None) -> None:
        dropped = False
        while len(self._models) > keep and (
            self.held_bytes() + coming > self._budget or (most is not None and len(self._models) > most)
        ):
            self._models.popitem(last=False)
            dropped = True
        if dropped:
            release_memory()


@dataclass(frozen=True)
class _Part:
    """A component: its layers, and which of them are on the device."""

    layers: Sequence[torch.nn.Module]
    held: Held

    def take(self, wanted: Collection[int], copy: Copy) -> None:
        """Have exactly the layers ``wanted`` on the device; those that leave go first."""
        for index, layer in enumerate(self.layers):
            if index not in wanted:
                send_home(layer)
        for index in sorted(wanted):
            bring(self.layers[index], copy)


def _part(module: torch.nn.Module) -> _Part:
    layers = layers_of(module)
    for layer in layers:
        if not is_away(layer):  # a layer that a patch changed in part comes back whole
            send_home(layer)
    component = Component(module, tuple(layer_bytes(layer) for layer in layers))
    return _Part(layers, Held(component, frozenset(i for i, layer in enumerate(layers) if is_away(layer))))


def component_bytes(model: LoadedModel) -> dict[str, int]:
    """Return the bytes of each component of ``model``."""
    return {name: nbytes(module) for name, module in model.modules.items()}


def release_memory() -> None:
    """Collect garbage, empty the device's cache and, on Linux, return freed heap pages to the system."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
