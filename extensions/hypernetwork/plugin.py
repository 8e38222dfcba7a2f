"""Hypernetworks: ``<hypernet:name:weight>`` changes what attention takes its keys and values from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules.plugin import (
    Asked,
    Context,
    DarkroomError,
    OncePerRequest,
    Plan,
    Plugin,
    Route,
    Segment,
    Stamp,
    Tag,
    Variant,
    extract_tags,
    model_variant,
)

from .networks import Hypernetwork, found, load

if TYPE_CHECKING:
    import torch

LARGEST = 100.0
Known = Mapping[str, Sequence[Stamp]]


@dataclass(frozen=True)
class Wanted:
    """A hypernetwork that a prompt asks for, and the share of its output that is added."""

    stamp: Stamp
    weight: float


class Hypernetworks(Plugin):
    """Turns tags into hooks of every attention layer whose context has a width that the file knows."""

    id = "hypernetwork"
    name = "Hypernetworks"
    description = "<hypernet:name:weight> in a prompt: small networks beside attention."
    version = "1.0"
    tags = ("hypernet",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._known = OncePerRequest(self._found)

    def routes(self) -> Sequence[Route]:
        """Return the list of hypernetworks, as A1111 gives it."""
        return (Route("/sdapi/v1/hypernetworks", self._listed),)

    def on_plan(self, plan: Plan, params: Any) -> Plan | None:
        """Say what the prompts ask for and cannot have."""
        texts = [one.prompt for one in plan.pictures] + [one.prompt for one in plan.passes]
        tags = [tag for text in texts for tag in extract_tags(text)[1] if tag.name in self.tags]
        variants = [model_variant(segment.model) for pass_ in plan.passes for segment in pass_.segments] if tags else []
        warnings = dict.fromkeys(
            warning for variant in variants for tag in tags
            for warning in _chosen(tag, variant, self._known(plan.request))[1]
        )
        return dataclasses.replace(plan, warnings=(*plan.warnings, *warnings)) if warnings else None

    def patches(self, plan: Plan, segment: Segment, tags: Sequence[Tag], params: Any) -> Sequence[Any]:
        """Return two hooks for each tag: of self-attention and of cross-attention."""
        if not tags:
            return ()
        variant = model_variant(segment.model)
        known = self._known(plan.request)
        chosen = [_chosen(tag, variant, known)[0] for tag in tags]
        return [patch for one in chosen if one for patch in _hooks(one)]

    def _found(self) -> Known:
        return found(self.context.folders.get("hypernetworks", ()))

    def _listed(self, asked: Asked) -> list[Mapping[str, str]]:
        return [{"name": name, "path": str(files[0].path)} for name, files in self._found().items()]


def _chosen(tag: Tag, variant: Variant, known: Known) -> tuple[Wanted | None, tuple[str, ...]]:
    """Return what ``tag`` asks for, None where it cannot be had, and what to tell the user."""
    name = tag.positional[0] if tag.positional else ""
    files = known.get(name, [])
    weight = _weight(tag)
    if not files:
        return None, (f"There is no hypernetwork named {name!r}; {tag} was left out.",)
    if weight is None:
        return None, (f"The weight of {tag} is no number up to {LARGEST:g}; it was left out.",)
    try:
        networks = load(files[0]).networks
    except DarkroomError as error:
        return None, (f"{error.message} {tag} was left out.",)
    if not _widths(variant) & networks.keys():
        return None, (f"The hypernetwork {files[0].path.name} does not fit {variant.name}; {tag} was left out.",)
    several = f"Several hypernetworks are called {name!r}: {', '.join(str(one.path) for one in files)}. " \
              "The first was used."
    return Wanted(files[0], weight), (several,) if len(files) > 1 else ()


def _weight(tag: Tag) -> float | None:
    try:
        weight = float(tag.positional[1]) if len(tag.positional) > 1 else 1.0
    except ValueError:
        return None
    return weight if math.isfinite(weight) and abs(weight) <= LARGEST else None


def _widths(variant: Variant) -> set[int]:
    """Return the widths that the contexts of a denoiser's attention have."""
    unet = variant.components["unet"]
    context = unet["cross_attention_dim"]
    return {*(context if isinstance(context, (list, tuple)) else (context,)), *unet["block_out_channels"]}


def _hooks(wanted: Wanted) -> list[Any]:
    from modules.plugin import AttentionHook

    network = load(wanted.stamp)
    key = f"{wanted.stamp.path}@{wanted.stamp.mtime}"
    return [AttentionHook(kind, key, wanted.weight, lambda scale: hook(network, scale)) for kind in ("attn1", "attn2")]


def hook(network: Hypernetwork, scale: float) -> Any:
    """Return the attention hook that adds ``scale`` times the output of ``network`` to both contexts."""
    def attend(layer: Any, proceed: Any) -> torch.Tensor:
        pair = network.networks.get(layer.key_context.shape[-1])
        if pair is None:
            changed = layer
        else:
            keys, values = layer.key_context, layer.value_context
            changed = dataclasses.replace(layer, key_context=_added(keys, pair[0], scale),
                                          value_context=_added(values, pair[1], scale))
        result: torch.Tensor = proceed(changed)
        return result
    return attend


def _added(context: torch.Tensor, network: Any, scale: float) -> torch.Tensor:
    # In float32 whatever the denoiser computes in: these networks were trained so, and some overflow in half.
    plain = context.float()
    return (plain + scale * network(plain)).to(context)
