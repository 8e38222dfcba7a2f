"""The one patch stack: changes to a model's weights, vocabulary and attention, as data, applied and undone exactly.

Changed weights are new tensors that take the place of the originals, which are kept as they are: undoing puts them
back bit by bit, and originals that are maps of a file stay maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from modules.core.errors import InvalidModel
from modules.runtime.attention import Hook
from modules.runtime.residence import settle
from modules.runtime.weights import is_finite

TOKENS = "embeddings.token_embedding.weight"
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class WeightDelta:
    """A change of one weight: ``component`` and ``name`` of the parameter, ``scale`` times ``delta``.

    ``delta`` maps the original weight, in float32, to the difference at scale 1. ``key`` says where it comes from;
    patches with equal key, place and scale are the same patch.
    """

    component: str
    name: str
    key: str
    scale: float
    delta: Callable[[torch.Tensor], torch.Tensor] = field(compare=False)


@dataclass(frozen=True)
class Replacement:
    """Another tensor in the place of a weight, to which the changes of the same place are then made.

    ``value`` gives it, of the weight's shape but for sides of 1; it is rounded to the type that the weight is held in.
    """

    component: str
    name: str
    key: str
    value: Callable[[], torch.Tensor] = field(compare=False)


@dataclass(frozen=True)
class Embedding:
    """A word that stands for learned vectors [tokens, width] of the text encoder, times ``scale``."""

    component: str
    word: str
    key: str
    scale: float
    vectors: torch.Tensor = field(compare=False)


@dataclass(frozen=True)
class AttentionHook:
    """A hook of the layer called ``layer``, or of all of a kind (``attn1``, ``attn2``); as ``WeightDelta`` otherwise.

    The hook gets its own ``scale``.
    """

    layer: str
    key: str
    scale: float
    hook: Callable[[float], Hook] = field(compare=False)


Patch = WeightDelta | Replacement | Embedding | AttentionHook
Placed = WeightDelta | Replacement | Embedding
Place = tuple[str, str]


@dataclass(frozen=True)
class Applied:
    """What is in force on a model: the patches, and the originals of the parameters that they replaced.

    ``words`` maps a component to its learned words and their token ids, ``hooks`` a layer or kind to its hooks.
    """

    patches: tuple[Patch, ...] = ()
    originals: Mapping[Place, torch.nn.Parameter] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)


class Patchable(Protocol):
    """A loaded model: its components by name, and what is applied to them."""

    modules: Mapping[str, Any]
    applied: Applied


def apply(model: Patchable, patches: Sequence[Patch]) -> None:
    """Bring exactly ``patches`` into force on ``model``; only weights for which they differ are made anew.

    Raises ``InvalidModel``, and leaves the model without any patch, where one is for another architecture.
    """
    wanted = tuple(patches)
    if wanted == model.applied.patches:
        return
    before, after = _by_place(model.applied.patches), _by_place(wanted)
    try:
        for place in [place for place in before if place not in after]:
            _restore(model, place)
        for place, group in after.items():
            if group != before.get(place):
                _change(model, place, group)
    except BaseException:
        undo(model)
        raise
    by_layer = _grouped(_of(wanted, AttentionHook), lambda patch: patch.layer)
    hooks = {layer: tuple(patch.hook(patch.scale) for patch in group) for layer, group in by_layer.items()}
    words = {place[0]: _numbered(_of(group, Embedding), model.applied.originals[place].shape[0])
             for place, group in after.items() if _of(group, Embedding)}
    model.applied = replace(model.applied, patches=wanted, words=words, hooks=hooks)


def wording(applied: Applied) -> tuple[tuple[str, str, str, float], ...]:
    """Return what of ``applied`` changes how a text is encoded, as plain values that are equal where the effect is."""
    deltas = ((patch.component, patch.name, patch.key, patch.scale) for patch in _of(applied.patches, WeightDelta)
              if patch.component.startswith("text_encoder"))
    replaced = ((patch.component, patch.name, patch.key, 1.0) for patch in _of(applied.patches, Replacement)
                if patch.component.startswith("text_encoder"))
    words = ((patch.component, patch.word, patch.key, patch.scale) for patch in _of(applied.patches, Embedding))
    return (*deltas, *replaced, *words)


def undo(model: Patchable) -> None:
    """Put every original parameter of ``model`` back."""
    for (component, name), original in model.applied.originals.items():
        _set(model.modules[component], name, original)
    model.applied = Applied()


def low_rank(up: torch.Tensor, down: torch.Tensor, factor: float = 1.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the ``delta`` of a low-rank change, ``factor * up @ down`` (Hu et al. 2021, equation 3).

    ``up`` is [out, rank] and ``down`` [rank, ...] of any shape whose product has as many elements as the weight;
    convolutions of size 1 may keep their trailing ones.
    """
    return lambda weight: factor * (up.float().flatten(1) @ down.float().flatten(1)).reshape(weight.shape)


def _of(patches: Sequence[Patch], kind: type[Kind]) -> list[Kind]:
    return [patch for patch in patches if isinstance(patch, kind)]


def _grouped(patches: Sequence[Kind], key: Callable[[Kind], Any]) -> dict[Any, list[Kind]]:
    groups: dict[Any, list[Kind]] = {}
    for patch in patches:
        groups.setdefault(key(patch), []).append(patch)
    return groups


def _changed(deltas: Sequence[WeightDelta], weight: torch.Tensor) -> torch.Tensor:
    """Add every change in float32 and round once, to sixteen bits where the weight is held in eight.

    In eight bits most of a small change would be lost. Raises ``InvalidModel`` for a change that does not fit, or that
    makes a weight larger than its type can be.
    """
    original = weight.float()
    total = original.clone()
    for patch in deltas:
        try:
            total += patch.scale * patch.delta(original).to(original)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
                raise
            raise InvalidModel(
                f"{patch.key} does not fit this model: {patch.name} is {tuple(weight.shape)}.",
                "It was made for another kind of model.",
            ) from error
    changed = total.to(torch.float16 if weight.dtype.itemsize == 1 else weight.dtype)
    if not is_finite(changed):
        raise InvalidModel(
            f"{', '.join(dict.fromkeys(patch.key for patch in deltas))} makes {deltas[0].name} larger than a number of "
            f"its type can be.", "Use a smaller weight.",
        )
    return changed


def _replaced(patch: Replacement, weight: torch.Tensor) -> torch.Tensor:
    """Return what takes the place of ``weight``, on its device; raises ``InvalidModel`` where it does not fit."""
    found = patch.value()
    if [side for side in found.shape if side != 1] != [side for side in weight.shape if side != 1]:
        raise InvalidModel(f"{patch.key} does not fit this model: {patch.name} is {tuple(weight.shape)}.",
                           "It was made for another kind of model.")
    rounded = found.reshape(weight.shape).to(weight.device).to(weight.dtype)
    if not is_finite(rounded):
        raise InvalidModel(f"{patch.key} makes {patch.name} larger than a number of its type can be.")
    return rounded


def _numbered(words: Sequence[Embedding], first: int) -> dict[str, tuple[int, ...]]:
    """Return the token ids of learned words, which come after the ``first`` of the vocabulary."""
    found = {}
    for patch in words:
        found[patch.word] = tuple(range(first, first + len(patch.vectors)))
        first += len(patch.vectors)
    return found


def _with_words(words: Sequence[Embedding], table: torch.Tensor) -> torch.Tensor:
    for patch in words:
        if patch.vectors.ndim != 2 or patch.vectors.shape[1] != table.shape[1]:
            raise InvalidModel(
                f"The embedding {patch.word} does not fit this model: its vectors are {patch.vectors.shape[-1]} wide, "
                f"not {table.shape[1]}.", "It was made for another kind of model.",
            )
    return torch.cat([table, *((patch.vectors.float() * patch.scale).to(table) for patch in words)])


def _by_place(patches: Sequence[Patch]) -> dict[Place, list[Placed]]:
    """Return the patches of each weight, replacements first, words last: they lengthen what was changed before."""
    groups: dict[Place, list[Placed]] = {}
    for replacement in _of(patches, Replacement):
        groups.setdefault((replacement.component, replacement.name), []).append(replacement)
    for delta in _of(patches, WeightDelta):
        groups.setdefault((delta.component, delta.name), []).append(delta)
    for word in _of(patches, Embedding):
        groups.setdefault((word.component, TOKENS), []).append(word)
    return groups


def _change(model: Patchable, place: Place, group: Sequence[Placed]) -> None:
    """Put in place of a weight what ``group`` makes of the original."""
    original = model.applied.originals.get(place)
    if original is None:
        original = _parameter(model, place)
    deltas, words = _of(group, WeightDelta), _of(group, Embedding)
    result = original.detach()
    for replacement in _of(group, Replacement):
        result = _replaced(replacement, result)
    result = _changed(deltas, result) if deltas else result
    result = _with_words(words, result) if words else result
    settle(original)  # originals wait at home, and what replaces them starts there
    changed = torch.nn.Parameter(result.to(original.device), requires_grad=False)
    model.applied = replace(model.applied, originals={**model.applied.originals, place: original})
    _set(model.modules[place[0]], place[1], changed)


def _restore(model: Patchable, place: Place) -> None:
    originals = dict(model.applied.originals)
    _set(model.modules[place[0]], place[1], originals.pop(place))
    model.applied = replace(model.applied, originals=originals)


def _parameter(model: Patchable, place: Place) -> torch.nn.Parameter:
    component, name = place
    try:
        found: torch.nn.Parameter = model.modules[component].get_parameter(name)
    except (KeyError, AttributeError):
        raise InvalidModel(
            f"This model has no weight {component}.{name}.", "The patch was made for another kind of model."
        ) from None
    return found


def _set(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, parameter)
