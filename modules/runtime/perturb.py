"""Worse predictions on purpose: some rows of a model call with disturbed self-attention, or without some blocks.

Guidance then moves away from what the network predicts for them. A ``Disturbance`` is a hook that acts on the rows of
its role alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import conv2d, pad

from modules.core.errors import InvalidRequest
from modules.core.guidance import Guidance, Perturbation
from modules.runtime.attention import AttentionLayer, Proceed

# The kind under which the hooks of whole transformer blocks stand beside ``attn1`` and ``attn2``.
BLOCK = "block"
Span = tuple[bool, slice]
Act = Callable[["Disturbance", AttentionLayer, Proceed], torch.Tensor]


@dataclass(frozen=True)
class Disturbance:
    """A hook of the layers called ``layers`` that acts on the rows of ``role``; remembers which layers it met."""

    role: str
    kind: str
    layers: tuple[str, ...]
    act: Act
    met: set[str] = field(default_factory=set)

    def __call__(self, layer: AttentionLayer, proceed: Proceed) -> torch.Tensor:
        """Return the layer's output, disturbed in its rows where the layer is one of these."""
        named = [name for name in self.layers if layer.name.startswith(prefix(name))]
        self.met.update(named)
        return self.act(self, layer, proceed) if named else proceed(layer)

    def missing(self) -> tuple[str, ...]:
        """Return the layers that no model call so far had."""
        return tuple(name for name in self.layers if name not in self.met)

    def spans(self, layer: AttentionLayer) -> list[Span]:
        """Return the rows of a call as runs: whether they are to be disturbed, and which they are."""
        spans, start = [], 0
        for disturbed, run in groupby(role == self.role for role in layer.inputs.roles):
            length = len(list(run))
            spans.append((disturbed, slice(start, start + length)))
            start += length
        return spans


def disturbances(guidance: Guidance) -> tuple[Disturbance, ...]:
    """Return the hooks that ``guidance`` needs, in any of its calls."""
    acts: dict[str, tuple[str, Act]] = {
        "perturbed": ("attn1", _identity), "smoothed": ("attn1", _smoothing(guidance.blur)), "skipped": (BLOCK, _skip),
    }
    return tuple(
        Disturbance(role, *_placed(acts[role], perturbation))
        for role, perturbation in guidance.perturbations().items() if perturbation.scale != 0
    )


def _placed(act: tuple[str, Act], perturbation: Perturbation) -> tuple[str, tuple[str, ...], Act]:
    return act[0], perturbation.layers, act[1]


def prefix(layer: str) -> str:
    """Return how the names of a layer's parts begin in diffusers' UNet: ``up.1.0`` is ``up_blocks.1.attentions.0.``."""
    side, *numbers = layer.split(".")
    parts = ["mid_block"] if side == "mid" else [f"{side}_blocks.{numbers.pop(0)}"]
    parts += [f"{part}.{number}" for part, number in zip(("attentions", "transformer_blocks"), numbers, strict=False)]
    return ".".join(parts) + "."


def install(module: torch.nn.Module) -> None:
    """Open the transformer blocks of a diffusers denoiser to hooks of the kind ``block``."""
    for name, block in module.named_modules():
        if hasattr(block, "attn1") and hasattr(block, "ff"):
            block.register_forward_hook(_BlockHooks(f"{name}."), with_kwargs=True)


@dataclass(frozen=True)
class _BlockHooks:
    """Calls the hooks of the kind ``block`` on the block called ``name``, once its output is known."""

    name: str

    def __call__(
        self, block: torch.nn.Module, arguments: Sequence[Any], keywords: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor:
        attention = (keywords.get("cross_attention_kwargs") or {}).get("attention")
        if attention is None:
            return output
        for hook in attention.hooks.get(BLOCK, ()):
            before = arguments[0]
            layer = AttentionLayer(self.name, block, before, before, before, attention.inputs)
            output = hook(layer, _already(output))
        return output


def _already(output: torch.Tensor) -> Proceed:
    return lambda layer: output


def _identity(disturbance: Disturbance, layer: AttentionLayer, proceed: Proceed) -> torch.Tensor:
    """Let each token attend to itself alone (Ahn et al. 2024, Perturbed-Attention Guidance, equation 13)."""
    spans, core = disturbance.spans(layer), layer.core

    def identity(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.cat([value[rows] if disturbed else core(query[rows], key[rows], value[rows])
                          for disturbed, rows in spans])
    return proceed(replace(layer, core=identity))


def _smoothing(sigma: float) -> Act:
    """Blur the queries over the picture (Hong 2024, Smoothed Energy Guidance, section 4)."""
    def smooth(disturbance: Disturbance, layer: AttentionLayer, proceed: Proceed) -> torch.Tensor:
        spans, core = disturbance.spans(layer), layer.core
        height, width = layer.inputs.x.shape[-2:]

        def smoothed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            queries = [blurred(query[rows], grid(query.shape[2], height, width), sigma) if disturbed else query[rows]
                       for disturbed, rows in spans]
            return core(torch.cat(queries), key, value)
        return proceed(replace(layer, core=smoothed))
    return smooth


def _skip(disturbance: Disturbance, layer: AttentionLayer, proceed: Proceed) -> torch.Tensor:
    """Leave the block out: its rows come out as they went in (Skip Layer Guidance)."""
    after = proceed(layer)
    return torch.cat([layer.hidden[rows] if disturbed else after[rows] for disturbed, rows in disturbance.spans(layer)])


def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a layer's ``tokens``: ``height`` and ``width`` of the latent halved, rounding up.

    Raises ``InvalidRequest`` where no halving gives as many, as when tokens are merged.
    """
    while height * width > tokens and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens:
        raise InvalidRequest("Smoothed energy guidance cannot blur queries that do not form the picture's grid.",
                             "Turn token merging off, or choose other layers.")
    return height, width


def blurred(query: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Return queries [rows, heads, tokens, width] blurred over their ``size`` (rows, columns) by ``sigma`` cells.

    The kernel spans six sigmas, at most the picture and odd, with reflected borders, as in the paper's program; an
    infinite sigma gives the mean.
    """
    if math.isinf(sigma):
        return query.mean(dim=2, keepdim=True).expand_as(query)
    rows, heads, _, width = query.shape
    picture = query.transpose(2, 3).reshape(rows * heads * width, 1, *size)
    for axis in (0, 1):
        picture = _blurred_along(picture, axis, sigma)
    return picture.reshape(rows, heads, width, -1).transpose(2, 3)


def _blurred_along(picture: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """Blur [n, 1, height, width] along one axis of the picture."""
    side = picture.shape[2 + axis]
    reach = min(math.ceil(6 * sigma) // 2, side // 2 if side > 1 else 0)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=picture.device)
    kernel = (offsets / sigma).square().mul(-0.5).softmax(dim=0).to(picture.dtype)
    border = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
    shape = (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)
    return conv2d(pad(picture, border, mode="reflect"), kernel.reshape(shape))
