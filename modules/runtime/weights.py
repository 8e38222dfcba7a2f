"""Checkpoint tensors, opened as memory maps, and how they become a module's parameters without a second copy."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from modules.core.errors import InvalidModel

SHOWN = 3


class Weights(Mapping[str, torch.Tensor]):
    """Named tensors of a file or a folder's component; each is read (mapped, not copied) when it is asked for."""

    def __init__(self, readers: Mapping[str, Callable[[str], torch.Tensor]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._readers[name](name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_weights(*paths: str | Path, inert: Mapping[str, type] = MappingProxyType({})) -> Weights:
    """Open safetensors or torch files as one mapping; the shards of a component are several.

    Tensors are private maps of the file: resident memory grows as they are touched, anonymous memory does not.
    Pickles are read with torch's weights-only reader; ``inert`` are the further names that one may contain, each with
    the class that stands for it. The first bytes decide the format. Raises ``InvalidModel`` where a file is damaged
    or holds anything but plain data.
    """
    readers: dict[str, Callable[[str], torch.Tensor]] = {}
    for path in map(Path, paths):
        try:
            readers |= _load_pickle(path, inert) if _is_pickle(path) else _map_safetensors(path)
        except FileNotFoundError:
            raise InvalidModel(f"{path.name} is no longer there.", "Refresh the list of models.") from None
    return Weights(readers)


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80"))


def _map_safetensors(path: Path) -> dict[str, Callable[[str], torch.Tensor]]:
    try:
        handle = safe_open(str(path), framework="pt", device="cpu")
    except SafetensorError as error:
        raise InvalidModel(f"{path.name} is damaged: {error}.", "Download it again.") from error
    return dict.fromkeys(handle.keys(), handle.get_tensor)


def read_object(path: str | Path, inert: Mapping[str, type] = MappingProxyType({})) -> Any:
    """Return all that a file holds: the object that was pickled, or safetensors' names to tensors.

    Read, checked and refused as by ``open_weights``.
    """
    path = Path(path)
    try:
        return _unpickled(path, inert) if _is_pickle(path) else dict(Weights(_map_safetensors(path)))
    except FileNotFoundError:
        raise InvalidModel(f"{path.name} is no longer there.", "Refresh the list of models.") from None


def _load_pickle(path: Path, inert: Mapping[str, type]) -> dict[str, Callable[[str], torch.Tensor]]:
    tensors = _tensors(_unpickled(path, inert))
    return dict.fromkeys(tensors, tensors.__getitem__)


def _unpickled(path: Path, inert: Mapping[str, type]) -> Any:
    try:
        with torch.serialization.safe_globals([(kind, name) for name, kind in inert.items()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InvalidModel(
            f"{path.name} holds more than weights and was not loaded: {_refused(error)}.",
            "Convert it to .safetensors, or get it from a source you trust.",
        ) from error
    except FileNotFoundError:
        raise
    except (RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile,
            OSError) as error:
        raise InvalidModel(f"{path.name} is damaged: {_first_line(error)}", "Download it again.") from error


def _tensors(loaded: object) -> dict[str, torch.Tensor]:
    """Take the state dict out of what training programs wrap it in."""
    if not isinstance(loaded, Mapping):
        raise InvalidModel("The file holds no named weights.")
    inner = loaded.get("state_dict", loaded)
    if not isinstance(inner, Mapping):
        raise InvalidModel("The file's state_dict holds no named weights.")
    return {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def _refused(error: pickle.UnpicklingError) -> str:
    """Name what torch refused to run; its own message is about its arguments."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks to run {found.group(1)}" if found else _first_line(error).removesuffix(".")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Target:
    """How one component's weights are held: on ``device``, computed in ``dtype``.

    A component that would take ``cast_above`` bytes or more in ``dtype`` is held in ``storage`` (None: as the file
    has it, where that is narrower), mapped where that is possible, and cast layer by layer at each call. In eight
    bits, matrices and convolutions alone are held, since norms and biases are small and suffer most.
    """

    device: torch.device
    dtype: torch.dtype
    storage: torch.dtype | None = None
    cast_above: int | None = None


def assign(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], source: Callable[[str], str],
           target: Target, what: str) -> None:
    """Give ``module`` (on the meta device) the weights that ``source`` names for each of its own names.

    A matrix may come as a 1x1 convolution or the other way round. Raises ``InvalidModel``, speaking of ``what``, for
    missing names, wrong shapes and values that are not finite.
    """
    expected = module.state_dict()
    missing = [source(name) for name in expected if source(name) not in weights]
    if missing:
        raise InvalidModel(f"{what} lacks {len(missing)} tensors: {_some(missing)}.", "Download the model again.")
    wrong = [f"{source(name)} {_shape(weights[source(name)])} instead of {_shape(tensor)}"
             for name, tensor in expected.items() if not _fits(weights[source(name)], tensor)]
    if wrong:
        raise InvalidModel(f"{what} has tensors of another shape: {_some(wrong)}.", "It may be another architecture.")
    cast = keeps_storage(module, target)
    held = {}
    for name, tensor in expected.items():
        stored = weights[source(name)]
        _check_finite(source(name), stored, what)
        dtype = _held_type(stored, target) if cast else target.dtype
        held[name] = _place(stored.reshape(tensor.shape), target.device, dtype)
    module.load_state_dict(held, assign=True)
    module.requires_grad_(False).eval()
    if any(tensor.dtype != target.dtype for tensor in held.values()):
        cast_on_call(module, target.dtype)


def keeps_storage(module: torch.nn.Module, target: Target) -> bool:
    """Return whether ``module`` is large enough for its weights to stay in the type they are stored in."""
    if target.cast_above is None:
        return False
    return sum(tensor.numel() for tensor in module.state_dict().values()) * target.dtype.itemsize >= target.cast_above


def _fits(stored: torch.Tensor, wanted: torch.Tensor) -> bool:
    return [side for side in stored.shape if side != 1] == [side for side in wanted.shape if side != 1]


def _held_type(stored: torch.Tensor, target: Target) -> torch.dtype:
    if target.storage is None:
        return stored.dtype if stored.dtype.itemsize < target.dtype.itemsize else target.dtype
    return target.storage if target.storage.itemsize > 1 or stored.ndim > 1 else target.dtype


def _place(stored: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Move before converting: half the bytes cross the bus, and the faster device converts."""
    return stored.to(device).to(dtype)


def _check_finite(name: str, tensor: torch.Tensor, what: str) -> None:
    if tensor.is_floating_point() and tensor.numel() and not is_finite(tensor):
        raise InvalidModel(f"{what} is not usable: {name} holds NaN or infinity.", "Download the model again.")


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all values are finite; one pass without a temporary of the tensor's size."""
    if tensor.dtype.itemsize == 1:
        tensor = tensor.to(torch.float16)
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")


def cast_on_call(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Make every layer of ``module`` compute in ``dtype`` whatever type its weights are held in; for inference only.

    A layer's weights are cast for the time of its own call, so the whole network never exists in ``dtype``.
    """
    layers = [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]
    elements = max((sum(weight.numel() for weight in layer.parameters(recurse=False)) for layer in layers), default=0)
    cast = _LayerCast(dtype, elements)
    for layer in layers:
        layer.register_forward_pre_hook(cast.before)
        layer.register_forward_hook(cast.after, always_call=True)


class _LayerCast:
    """Puts cast weights into a layer before its call and the held ones back after it.

    On a CPU all layers share one buffer of the largest one's size: pages that the system hands out anew at each call
    cost several times the cast itself.
    """

    def __init__(self, dtype: torch.dtype, elements: int) -> None:
        self._dtype = dtype
        self._elements = elements
        self._buffer = torch.empty(0, dtype=dtype)
        self._held: dict[torch.nn.Module, dict[str, Any]] = {}

    def before(self, layer: torch.nn.Module, inputs: Any) -> None:
        """Replace the weights of ``layer`` by cast ones; the outermost layer at work has the buffer."""
        shared = not self._held
        self._held[layer] = dict(layer._parameters)
        used = 0
        for name, weight in self._held[layer].items():
            if weight is not None:
                in_buffer = shared and weight.device.type == "cpu" and used + weight.numel() <= self._elements
                layer._parameters[name] = self._buffered(weight, used) if in_buffer else weight.to(self._dtype)
                used += weight.numel()

    def after(self, layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        """Put the held weights of ``layer`` back."""
        layer._parameters.update(self._held.pop(layer))

    def _buffered(self, weight: torch.Tensor, start: int) -> Any:
        if not len(self._buffer):
            self._buffer = torch.empty(self._elements, dtype=self._dtype)
        with torch.no_grad():
            return self._buffer[start:start + weight.numel()].view(weight.shape).copy_(weight)


def nbytes(module: torch.nn.Module) -> int:
    """Return the bytes of the parameters and buffers of ``module``, mapped ones counted too."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
