"""The one attention processor of denoisers, and the hooks through which anything changes attention.

Without hooks it computes what diffusers' ``AttnProcessor2_0`` does for the attention of a transformer block. A hook
is ``hook(layer, proceed) -> hidden states``: it sees an ``AttentionLayer`` and calls ``proceed`` with it, changed or
not, none, one or several times. Merging tokens replaces ``hidden``; a hypernetwork replaces ``key_context`` and
``value_context``; reference attention appends to them; an image adapter wraps ``core`` and adds its own keys and
values; perturbed attention replaces ``core`` for some rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from modules.runtime.attention_backends import Core
from modules.runtime.attention_choice import AttentionChooser

Proceed = Callable[["AttentionLayer"], torch.Tensor]
Hook = Callable[["AttentionLayer", Proceed], torch.Tensor]


@dataclass(frozen=True)
class AttentionCall:
    """What every layer gets from one call of the denoiser: its inputs and the hooks by layer.

    ``hooks`` is keyed by a layer's full name, or by ``attn1`` (self-attention) or ``attn2`` (cross-attention) for
    all of a kind; hooks of the kind are outside those of the name.
    """

    inputs: Any = None
    hooks: Mapping[str, Sequence[Hook]] = field(default_factory=dict)


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer at work: ``hidden`` and both contexts are [rows, tokens, width].

    ``name`` is the layer's full name and ``module`` diffusers' ``Attention``. ``core`` maps query, key and value
    [rows, heads, tokens, head width] to the attended values. ``inputs`` is the ``ModelInput`` of the call.
    """

    name: str
    module: Any
    hidden: torch.Tensor
    key_context: torch.Tensor
    value_context: torch.Tensor
    inputs: Any = None
    core: Core = scaled_dot_product_attention


class Attend:
    """The attention processor of the layer called ``name``; ``chooser`` says which backend computes it."""

    def __init__(self, name: str, chooser: AttentionChooser | None = None) -> None:
        self.name = name
        self._chooser = chooser or AttentionChooser()

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        attention: AttentionCall | None = None,
    ) -> torch.Tensor:
        """Return the layer's output [rows, tokens, width]; ``attention`` comes in ``cross_attention_kwargs``."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        core = self._chooser.core
        if attention is None or not attention.hooks:
            return attend(AttentionLayer(self.name, attn, hidden_states, context, context, core=core))
        kind = self.name.rpartition(".")[2]
        hooks = (*attention.hooks.get(kind, ()), *attention.hooks.get(self.name, ()))
        layer = AttentionLayer(self.name, attn, hidden_states, context, context, attention.inputs, core)
        return _nested(hooks)(layer)


def _nested(hooks: Sequence[Hook]) -> Proceed:
    if not hooks:
        return attend
    first, inner = hooks[0], _nested(hooks[1:])
    return lambda layer: first(layer, inner)


def attend(layer: AttentionLayer) -> torch.Tensor:
    """Return multi-head attention of ``layer.hidden`` to its contexts, projected out (Vaswani et al. 2017)."""
    module = layer.module
    query = split_heads(module.to_q(layer.hidden), module.heads)
    key = split_heads(module.to_k(layer.key_context), module.heads)
    value = split_heads(module.to_v(layer.value_context), module.heads)
    attended = layer.core(query, key, value).transpose(1, 2).flatten(2).to(query.dtype)
    return torch.as_tensor(module.to_out[0](attended))


def split_heads(projected: torch.Tensor, heads: int) -> torch.Tensor:
    """Return [rows, tokens, width] as [rows, heads, tokens, width / heads]."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


class AttendPixels:
    """The attention processor of an autoencoder: over all places of a feature map [n, channels, h, w], normalised."""

    def __init__(self, name: str, chooser: AttentionChooser) -> None:
        self.name = name
        self._chooser = chooser

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the layer's output, the feature map itself added where the layer says so."""
        flat = hidden_states.flatten(2)
        hidden = attn.group_norm(flat).transpose(1, 2)
        out = attend(AttentionLayer(self.name, attn, hidden, hidden, hidden, core=self._chooser.core))
        out = out.transpose(1, 2).reshape(hidden_states.shape)
        added = out + hidden_states if attn.residual_connection else out
        return added / attn.rescale_output_factor


def install(module: torch.nn.Module, chooser: AttentionChooser | None = None) -> None:
    """Give every attention layer of a diffusers denoiser the processor that knows its name."""
    shared = chooser or AttentionChooser()
    for name, layer in _layers(module):
        layer.set_processor(Attend(name, shared))


def install_in_autoencoder(module: torch.nn.Module, chooser: AttentionChooser) -> None:
    """Let ``chooser`` compute the attention of a diffusers autoencoder, whose tokens are as many as latent cells."""
    for name, layer in _layers(module):
        layer.set_processor(AttendPixels(name, chooser))


def _layers(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in module.named_modules():
        if hasattr(layer, "set_processor") and hasattr(layer, "to_q"):
            yield name, layer
