"""The one attention processor of denoisers, and the hooks through which anything changes attention.

Without hooks it computes what diffusers' ``AttnProcessor2_0`` does for the attention of a transformer block. A hook
is ``hook(layer, proceed) -> hidden states``: it sees an ``AttentionLayer`` and calls ``proceed`` with it, changed or
not, none, one or several times. Merging tokens replaces ``hidden``; a hypernetwork replaces ``key_context`` and
``value_context``; reference attention appends to them; an image adapter wraps ``core`` and adds its own keys and
values; perturbed attention replaces ``core`` for some rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

Core = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
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
    """The attention processor of the layer called ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name

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
        layer = AttentionLayer(self.name, attn, hidden_states, context, context)
        if attention is None or not attention.hooks:
            return attend(layer)
        kind = self.name.rpartition(".")[2]
        hooks = (*attention.hooks.get(kind, ()), *attention.hooks.get(self.name, ()))
        layer = AttentionLayer(self.name, attn, hidden_states, context, context, attention.inputs)
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


def install(module: torch.nn.Module) -> None:
    """Give every attention layer of a diffusers denoiser the processor that knows its name."""
    for name, layer in module.named_modules():
        if hasattr(layer, "set_processor") and hasattr(layer, "to_q"):
            layer.set_processor(Attend(name))
