"""Where a layer's weights are: at home, in main memory, or as a copy on the device.

What is at home stays there, mapped from the file where it can be, so leaving the device copies nothing. Only the data
of a parameter is exchanged, never the parameter, so whoever holds one holds it wherever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Copy = Callable[[torch.Tensor], torch.Tensor]


def layers_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the submodules that have weights or buffers of their own, in the order of the network."""
    return [layer for layer in module.modules() if any(True for _ in tensors_of(layer))]


def tensors_of(layer: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield a layer's own parameters and buffers."""
    for tensor in (*layer._parameters.values(), *layer._buffers.values()):
        if tensor is not None:
            yield tensor


def layer_bytes(layer: torch.nn.Module) -> int:
    """Return the bytes of a layer's own parameters and buffers."""
    return sum(tensor.nbytes for tensor in tensors_of(layer))


def is_away(layer: torch.nn.Module) -> bool:
    """Return whether all of a layer's tensors are on the device."""
    return all(_home(tensor) is not None for tensor in tensors_of(layer))


def bring(layer: torch.nn.Module, copy: Copy) -> None:
    """Put copies of a layer's tensors on the device by ``copy``; those that are there stay."""
    for tensor in tensors_of(layer):
        if _home(tensor) is None:
            there = copy(tensor.data)
            tensor.home = tensor.data
            tensor.data = there


def send_home(layer: torch.nn.Module) -> None:
    """Let a layer's tensors be what they are at home; frees the copies."""
    for tensor in tensors_of(layer):
        settle(tensor)


def settle(tensor: torch.Tensor) -> None:
    """Bring one tensor home; one that was converted on the device, such as to more bits, is copied back."""
    home = _home(tensor)
    if home is not None:
        tensor.data = home if tensor.dtype == home.dtype else tensor.data.to(home.device)
        tensor.home = None


def stream(layers: Iterable[torch.nn.Module], copy: Copy) -> list[Any]:
    """Have each of ``layers`` on the device for the time of its own calls only; returns handles to end it with.

    Its hooks are outermost, so that a layer that is cast at each call is cast on the device.
    """
    def before(layer: torch.nn.Module, inputs: Any) -> None:
        bring(layer, copy)

    def after(layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        send_home(layer)

    handles: list[Any] = []
    for layer in layers:
        handles.append(layer.register_forward_pre_hook(before, prepend=True))
        handles.append(layer.register_forward_hook(after, always_call=True))
    return handles


@contextmanager
def visiting(module: torch.nn.Module, copy: Copy) -> Iterator[None]:
    """Have ``module`` on the device for a while, such as for one call on loading."""
    layers = [layer for layer in layers_of(module) if not is_away(layer)]
    try:
        for layer in layers:
            bring(layer, copy)
        yield
    finally:
        for layer in layers:
            send_home(layer)


def cast_bytes(module: torch.nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of the largest layer's weights in ``dtype``, where any weight is held in another; else 0."""
    if all(weight.dtype == dtype for weight in module.parameters()):
        return 0
    return max(sum(tensor.numel() for tensor in tensors_of(layer)) for layer in layers_of(module)) * dtype.itemsize


def _home(tensor: torch.Tensor) -> torch.Tensor | None:
    return getattr(tensor, "home", None)
