"""Which module of a checkpoint each part of a network changes, and whether it fits there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules.adapters.formulas import bias_change, weight_change
from modules.adapters.reading import Network
from modules.families.places import Place
from modules.library.network_names import SCALE

if TYPE_CHECKING:
    from torch import Tensor

    Delta = Callable[[Tensor], Tensor]

# Numbers that a formula reads, beside the tensors that it computes with.
READ = ("alpha", "on_input")
MOST_FOREIGN = 0.1
ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
# lora_diffusion numbers the linear layers of a transformer block, and of a layer of CLIP, in the order of its time.
_BLOCK = (*(f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")), "ff.net.0.proj",
          *(f"attn2.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")))
_LAYER = tuple(f"self_attn.{name}_proj" for name in ("k", "v", "q", "out"))
_SIDES = ("down_blocks", "up_blocks", "mid_block")


@dataclass(frozen=True)
class Change:
    """What one module of a network changes: its tensors and where; ``key`` names it and the state of its file."""

    key: str
    place: Place
    parts: Mapping[str, Tensor]
    rank: int | None

    def patches(self, scale: float) -> Iterator[Any]:
        """Yield the changes of weight and bias, ``scale`` times."""
        from modules.runtime.patches import WeightDelta

        for name, change in self.deltas().items():
            yield WeightDelta(self.place.component, f"{self.place.path}.{name}", self.key, scale, change)

    def deltas(self) -> dict[str, Delta]:
        """Return the changes at scale 1 of ``weight`` and ``bias``, those of them that there are.

        Each is computed in the type of the weight that it is given, float32 or float64.
        """
        found: dict[str, Delta] = {}
        if _changes_weight(self.parts):
            found["weight"] = functools.partial(_changed, weight_change, self.parts, self.rank)
        if bias_change(self.parts):
            found["bias"] = functools.partial(_changed, _bias, self.parts, self.rank)
        return found


@dataclass(frozen=True)
class Changes:
    """What of a network fits a checkpoint; ``components`` are the checkpoint's text encoders.

    ``foreign`` are names of modules that the checkpoint does not have, or has in another shape; ``unread`` are names of
    tensors and modules that nothing is known of, or that are of rank 0.
    """

    fitting: tuple[Change, ...]
    foreign: tuple[str, ...]
    unread: tuple[str, ...]
    components: tuple[str, ...]

    def encoders(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which text encoder takes each of a bundled word's ``parts``."""
        if len(self.components) == 1 and len(parts) == 1:
            return {self.components[0]: next(iter(parts.values()))}
        return {ENCODERS[name]: vectors for name, vectors in parts.items() if ENCODERS.get(name) in self.components}


def fit(network: Network, known: Mapping[str, Place], key: str, rank: int | None = None) -> Changes:
    """Return what ``network`` changes about a checkpoint whose modules are ``known``; reads no tensor of that.

    ``key`` names the network and the state of its file. ``rank`` is how many ranks of a LoRA count.
    """
    named: dict[str, Mapping[str, Tensor]] = dict(network.modules)
    for component, pairs in network.in_order.items():
        names = _in_order(known, component)
        names += [f"{component}:{number}" for number in range(len(names), len(pairs))]
        named |= dict(zip(names, pairs, strict=False))
    fitting, foreign, unread = [], [], list(network.unknown)
    for name, parts in named.items():
        place, hollow = known.get(name), _hollow(parts)
        if not _is_known(hollow):
            unread.append(name)
        elif place is not None and _fits(place, hollow, rank):
            fitting.append(Change(f"{key}:{name}:{rank}", place, parts, rank))
        else:
            foreign.append(name)
    # What is for another kind of model may fit in part; a model with other inputs lacks a layer or two.
    if len(foreign) > MOST_FOREIGN * (len(foreign) + len(fitting)):
        fitting = []
    components = dict.fromkeys(place.component for place in known.values() if place.component != "unet")
    return Changes(tuple(fitting), tuple(foreign), tuple(unread), tuple(components))


def _changed(make: Any, parts: Mapping[str, Tensor], rank: int | None, weight: Tensor) -> Tensor:
    """Compute where the weight is; nothing of it stays."""
    here = {name: part if name in READ else part.to(weight.device).to(weight.dtype) for name, part in parts.items()}
    changed: Tensor = make(here, rank)(weight)
    return changed


def _bias(parts: Mapping[str, Tensor], rank: int | None) -> Any:
    return bias_change(parts)


def _changes_weight(parts: Mapping[str, Tensor]) -> bool:
    return not set(parts) <= {"diff_b", "b_norm", SCALE, *READ}


def _hollow(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``parts`` without memory, all but the numbers that formulas read."""
    return {name: part if name in READ else part.to("meta") for name, part in parts.items()}


def _is_known(parts: Mapping[str, Tensor]) -> bool:
    """Return whether there is a formula for all that ``parts`` change."""
    try:
        return (not _changes_weight(parts) and bool(bias_change(parts))) or weight_change(parts) is not None
    except ValueError:
        return False


def _fits(place: Place, parts: Mapping[str, Tensor], rank: int | None) -> bool:
    """Return whether the change of each of the place's tensors can be computed, tried on ``parts`` without memory."""
    import torch

    wanted = []
    if _changes_weight(parts):
        wanted.append((place.weight, lambda: weight_change(parts, rank)))
    if bias_change(parts):
        wanted.append((place.bias, lambda: bias_change(parts)))
    try:
        for shape, make in wanted:
            change = make()
            if shape is None or change is None or tuple(change(torch.empty(shape, device="meta")).shape) != shape:
                return False
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError):
        return False
    return bool(wanted)


def _in_order(known: Mapping[str, Place], component: str) -> list[str]:
    """Return the names of the modules that lora_diffusion would have numbered, in its order."""
    paths = [place.path for place in dict.fromkeys(known.values()) if place.component == component]
    if component != "unet":
        layers = dict.fromkeys(path.split(".self_attn.")[0] for path in paths if ".self_attn." in path)
        return [f"{component}.text_model.{layer}.{name}" for layer in layers for name in _LAYER]
    blocks = dict.fromkeys(path[:path.index(".attn1.")] for path in paths if ".attn1." in path)
    ordered: Sequence[str] = [block for side in _SIDES for block in sorted(blocks, key=_numbers)
                              if block.startswith(side)]
    return [f"unet.{block}.{name}" for block in ordered for name in _BLOCK]


def _numbers(path: str) -> list[int]:
    return [int(piece) for piece in path.split(".") if piece.isdigit()]
