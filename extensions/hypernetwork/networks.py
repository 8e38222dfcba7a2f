"""Hypernetwork files: small networks that change what attention takes its keys and values from.

The format is AUTOMATIC1111's: a pickle that maps each width of context to two state dicts, one for keys and one for
values, beside the layer structure. A network adds its output to what it is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.plugin import InvalidModel, Stamp, model_files, read_tensors

if TYPE_CHECKING:
    import torch

    Network = Callable[[torch.Tensor], torch.Tensor]

SUFFIX = ".pt"
LINEAR = "linear"
# Files from before the structure was written down have one hidden layer of twice the width.
OLD_STRUCTURE = (1.0, 2.0, 1.0)
OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}
MAX_LAYERS = 64


@dataclass(frozen=True)
class Shape:
    """How the networks of a file are built: widths as multiples of the context's, and what follows each layer.

    ``activate_last`` says that the activation also follows the last layer.
    """

    structure: tuple[float, ...]
    activation: str
    layer_norm: bool
    dropout: tuple[float, ...]
    activate_last: bool


@dataclass(frozen=True, eq=False)
class Hypernetwork:
    """The networks of a file for keys and for values, by width of context."""

    networks: Mapping[int, tuple[Network, Network]]


def found(folders: Iterable[Path]) -> dict[str, list[Stamp]]:
    """Return the hypernetwork files in ``folders`` and below, by name."""
    by_name: dict[str, list[Stamp]] = {}
    for stamp in model_files(folders, (SUFFIX,)):
        by_name.setdefault(stamp.path.stem, []).append(stamp)
    return by_name


@functools.lru_cache(maxsize=4)
def load(stamp: Stamp) -> Hypernetwork:
    """Return the networks of a file, in float32.

    Raises ``InvalidModel`` where it is damaged, holds NaN, code, or layers that its structure does not name.
    """
    import torch

    file = stamp.path.name
    data = read_tensors(stamp.path)
    if not isinstance(data, Mapping):
        raise InvalidModel(f"{file} holds no hypernetwork.")
    shape = _shape(data, file)
    pairs = {width: pair for width, pair in data.items() if isinstance(width, int)}
    if not pairs:
        raise InvalidModel(f"{file} holds no hypernetwork.", "It may be another kind of model.")
    networks = {}
    for width, pair in pairs.items():
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(half, Mapping) for half in pair):
            raise InvalidModel(f"{file} lacks the networks for a context of {width}.", "Download it again.")
        for half in pair:
            if not all(isinstance(value, torch.Tensor) and bool(value.isfinite().all()) for value in half.values()):
                raise InvalidModel(f"The hypernetwork {file} holds NaN or infinity.", "Download it again.")
        networks[width] = (_network(pair[0], shape, width, file), _network(pair[1], shape, width, file))
    return Hypernetwork(networks)


def _shape(data: Mapping[Any, Any], file: str) -> Shape:
    structure = data.get("layer_structure") or OLD_STRUCTURE
    try:
        structure = tuple(float(item) for item in structure)
        if not 2 <= len(structure) <= MAX_LAYERS or structure[0] != 1 or structure[-1] != 1:
            raise ValueError(f"{structure} does not begin and end with 1")
        activation = data.get("activation_func") or LINEAR
        if not isinstance(activation, str) or activation.lower() not in (LINEAR, *ACTIVATIONS):
            raise ValueError(f"the activation {activation!r} is unknown")
        return Shape(structure, activation.lower(), bool(data.get("is_layer_norm")), _dropout(data, len(structure)),
                     bool(data.get("activate_output", True)))
    except (TypeError, ValueError) as error:
        raise InvalidModel(f"The structure of the hypernetwork {file} cannot be used: {error}.") from error


def _dropout(data: Mapping[Any, Any], length: int) -> tuple[float, ...]:
    """Return the dropout after each width: switched off in use, but it takes a number among the layers."""
    given = data.get("dropout_structure")
    if given is not None:
        return tuple(float(item) for item in given)
    if not data.get("use_dropout"):
        return (0.0,) * length
    last = 0.3 if data.get("last_layer_dropout") else 0.0
    return (0.0, *[0.3] * (length - 3), last, 0.0) if length > 2 else (0.0,) * length


# Those of torch.nn.modules.activation that change each number for itself and need no arguments, in lower case.
ACTIVATIONS = (
    "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "hardtanh", "hardsigmoid", "hardswish", "relu6", "selu",
    "celu", "gelu", "silu", "mish", "softplus", "softshrink", "hardshrink", "softsign", "tanhshrink", "logsigmoid",
)


def _network(weights: Mapping[str, torch.Tensor], shape: Shape, width: int, file: str) -> Network:
    """Return a stack of layers as a function; a layer's number in the file counts all that stands before it."""
    named = {_renamed(name): value.detach().float() for name, value in weights.items()}
    layers: list[Network] = []
    number, taken = 0, 0
    last = len(shape.structure) - 2
    for place in range(last + 1):
        layers.append(_linear(named, number, _widths(shape, place, width), file))
        number, taken = number + 1, taken + 2
        if shape.activation != LINEAR and (place < last or shape.activate_last):
            layers.append(_activation(shape.activation))
            number += 1
        if shape.layer_norm:
            layers.append(_norm(named, number, _widths(shape, place, width)[1], file))
            number, taken = number + 1, taken + 2
        if place + 1 < len(shape.dropout) and shape.dropout[place + 1] > 0:
            number += 1
    if taken != len(named):
        raise InvalidModel(f"The hypernetwork {file} has {len(named)} tensors for a context of {width}; "
                           f"its structure has {taken}.", "Download it again.")

    def run(context: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            context = layer(context)
        return context
    return run


def _renamed(name: str) -> str:
    head, _, tail = str(name).rpartition(".")
    return f"{OLD_NAMES.get(head, head)}.{tail}"


def _widths(shape: Shape, place: int, width: int) -> tuple[int, int]:
    return int(width * shape.structure[place]), int(width * shape.structure[place + 1])


def _tensors(named: Mapping[str, torch.Tensor], number: int, wanted: tuple[int, ...], file: str) -> tuple[Any, Any]:
    weight, bias = (named.get(f"linear.{number}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or tuple(weight.shape) != wanted or tuple(bias.shape) != wanted[:1]:
        raise InvalidModel(f"The hypernetwork {file} has no layer {number} of the shape its structure names.",
                           "Download it again.")
    return weight, bias


def _linear(named: Mapping[str, torch.Tensor], number: int, widths: tuple[int, int], file: str) -> Network:
    from torch.nn.functional import linear

    weight, bias = _tensors(named, number, widths[::-1], file)
    return _on_device(weight, bias, linear)


def _norm(named: Mapping[str, torch.Tensor], number: int, width: int, file: str) -> Network:
    from torch.nn.functional import layer_norm

    weight, bias = _tensors(named, number, (width,), file)
    return _on_device(weight, bias, lambda x, scale, shift: layer_norm(x, scale.shape, scale, shift))


def _on_device(weight: torch.Tensor, bias: torch.Tensor, function: Callable[..., Any]) -> Network:
    """Return ``function`` of an input and both tensors, brought to where inputs are once, not at each call."""
    placed: dict[Any, tuple[Any, Any]] = {}

    def run(x: torch.Tensor) -> Any:
        place = (x.device, x.dtype)
        if place not in placed:
            placed.clear()
            placed[place] = (weight.to(x), bias.to(x))
        return function(x, *placed[place])
    return run


def _activation(name: str) -> Network:
    from torch.nn.modules import activation

    # Swish is what A1111 calls Hardswish.
    wanted = "hardswish" if name == "swish" else name
    kinds = {key.lower(): getattr(activation, key) for key in activation.__all__}
    module: Network = kinds[wanted]()
    return module
