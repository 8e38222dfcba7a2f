"""ncnn's files (``.param`` and ``.bin``) as the state dicts that the networks were exported from.

``.param`` is text: a magic number, two counts, then a layer a line: kind, name, how many inputs and outputs, their
names, and ``key=value`` pairs. ``.bin`` holds the layers' weights in that order. What is understood are the graphs of
ESRGAN (RRDBNet, Real-ESRGAN x4plus and x2plus) and of Real-ESRGAN's compact networks; any other (waifu2x, Real-CUGAN,
networks with transformers, weights in eight bits) is refused, for its weights would be put where they do not belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modules.core.errors import InvalidModel

SUFFIX = ".param"

_MAGIC = "7767517"
_FLOAT16 = 0x01306B47
_MAX_TEXT = 4 * 1024 * 1024
# Parameters of a Convolution: outputs, width of the kernel, dilation, stride, padding, whether a bias, weights.
_OUTPUTS, _KERNEL, _HAS_BIAS, _WEIGHTS, _GROUPED = 0, 1, 5, 6, 7


@dataclass(frozen=True)
class Layer:
    """A line of the text: the layer's kind and its numbers by key."""

    kind: str
    numbers: dict[int, float]

    def whole(self, key: int) -> int:
        """Return a number, 0 where the line does not say."""
        return int(self.numbers.get(key, 0))


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dict of the network in ``path`` (``.param``) and the ``.bin`` beside it.

    Raises ``InvalidModel`` for a damaged file, one without its other half, and a graph that is not understood.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", errors="strict") as file:
            layers = _layers(file.read(_MAX_TEXT), path.name)
        data = path.with_suffix(".bin").read_bytes()
    except UnicodeDecodeError:
        raise _damaged(path.name, "it is no text") from None
    except FileNotFoundError:
        raise InvalidModel(f"{path.name} needs {path.stem}.bin beside it.", "Put both files there.") from None
    names = _names(layers, path.name)
    weighted = [layer for layer in layers if layer.kind in ("Convolution", "PReLU")]
    return _state(names, _arrays(weighted, data, path.name))


def _layers(text: str, name: str) -> list[Layer]:
    lines = text.splitlines()
    if len(lines) < 3 or lines[0].strip() != _MAGIC:
        raise _damaged(name, "it is no graph of ncnn")
    try:
        count = int(lines[1].split()[0])
        layers = [_layer(line.split()) for line in lines[2:] if line.strip()]
    except (ValueError, IndexError):
        raise _damaged(name, "a line is incomplete") from None
    if len(layers) != count:
        raise _damaged(name, f"it has {len(layers)} layers of {count}")
    return layers


def _layer(words: Sequence[str]) -> Layer:
    pairs = (word.split("=") for word in words[4 + int(words[2]) + int(words[3]):])
    # An array has a key of -23300 less its own, and its length in front.
    return Layer(words[0], {int(key): float(value) for key, value in pairs if "," not in value})


def _names(layers: Sequence[Layer], name: str) -> list[str]:
    """Return what each layer with weights is called in the state dict, in order."""
    kinds = [layer.kind for layer in layers if layer.kind not in ("Input", "Split")]
    if kinds[-1:] == ["Interp"]:  # the picture made smaller at the end: whoever asks for a size does that
        kinds.pop()
    convolutions, blocks = kinds.count("Convolution"), kinds.count("Concat") // 12
    if "PReLU" in kinds and kinds == ["Convolution", "PReLU"] * (convolutions - 1) + [
            "Convolution", "PixelShuffle", "Interp", "BinaryOp"]:
        return [f"body.{i}" for i in range(2 * convolutions - 1)]
    rises = kinds.count("Interp")
    if kinds[:1] == ["Reorg"] and _unshuffles(layers):  # whoever reads the weights sees it by their number
        kinds.pop(0)
    if blocks and convolutions == 15 * blocks + rises + 4 and _is_rrdb(kinds, blocks, rises):
        dense = [f"body.{i}.rdb{j}.conv{k}" for i in range(blocks) for j in (1, 2, 3) for k in range(1, 6)]
        return ["conv_first", *dense, "conv_body", *(f"conv_up{i + 1}" for i in range(rises)), "conv_hr", "conv_last"]
    raise InvalidModel(f"{name} is a network of ncnn that is not understood.",
                       "ESRGAN's and Real-ESRGAN's are; look for a .pth or .safetensors of this one.")


def _unshuffles(layers: Sequence[Layer]) -> bool:
    """Return whether the graph begins with torch's ``PixelUnshuffle`` by 2, as Real-ESRGAN's for twice the size."""
    first = next(layer for layer in layers if layer.kind not in ("Input", "Split"))
    return first.whole(0) == 2 and first.whole(1) == 0


def _is_rrdb(kinds: Sequence[str], blocks: int, rises: int) -> bool:
    """Return whether that is the order of ESRGAN's layers; activations may stand apart or be part of convolutions."""
    sums = {"Eltwise": "+", "BinaryOp": "+", "Convolution": "C", "Concat": "K", "Interp": "I"}
    order = "".join(sums.get(kind, "?") for kind in kinds if kind not in ("ReLU", "LeakyReLU"))
    order = order.replace("++", "+").replace("++", "+")  # a product and a sum, and the sums that end two blocks at once
    dense = "CKCKCKCKC+"
    return order == "C" + dense * 3 * blocks + "C+" + "IC" * rises + "CC"


def _arrays(layers: Sequence[Layer], data: bytes, name: str) -> list[list[np.ndarray]]:
    """Return each layer's weights, as they follow each other in ``data``."""
    at = 0

    def take(count: int, kind: str) -> np.ndarray:
        nonlocal at
        size = count * np.dtype(kind).itemsize
        if count < 0 or at + size > len(data):
            raise _damaged(name, "its .bin is too short")
        at += size + -size % 4
        return np.frombuffer(data, kind, count, at - size - -size % 4)

    found = []
    for layer in layers:
        if layer.kind == "PReLU":
            found.append([take(layer.whole(0), "<f4")])
            continue
        tag = int(take(1, "<u4")[0])
        if tag not in (0, _FLOAT16):
            raise InvalidModel(f"{name} holds weights in eight bits, which are not understood.")
        weights: np.ndarray = take(layer.whole(_WEIGHTS), "<f2" if tag else "<f4").astype(np.float32)
        side, outputs = layer.whole(_KERNEL), layer.whole(_OUTPUTS)
        if side < 1 or outputs < 1 or len(weights) % (outputs * side * side) or layer.whole(_GROUPED) > 1:
            raise _damaged(name, "a convolution's numbers contradict each other")
        bias = take(outputs if layer.whole(_HAS_BIAS) else 0, "<f4")
        found.append([weights.reshape(outputs, -1, side, side), *([bias] if len(bias) else [])])
    if at != len(data):
        raise _damaged(name, "its .bin is too long")
    return found


def _state(names: Sequence[str], arrays: Sequence[Sequence[np.ndarray]]) -> dict[str, torch.Tensor]:
    return {f"{name}.{part}": torch.from_numpy(array.copy())
            for name, found in zip(names, arrays, strict=True)
            for part, array in zip(("weight", "bias"), found, strict=False)}


def _damaged(name: str, reason: str) -> InvalidModel:
    return InvalidModel(f"{name} is damaged: {reason}.", "Download it again, the .bin that belongs to it as well.")
