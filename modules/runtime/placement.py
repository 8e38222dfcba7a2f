"""What is on the accelerator during which phase: a pure plan of moves that keeps to a budget of bytes.

A component (text encoder, denoiser, autoencoder) is a row of layers. What a phase needs comes onto the device, whole
where it fits beside the phase's working memory; what was used longest ago leaves first, and only as many of its layers
as have to. Of a component that does not fit, some layers stay at home and are brought one at a time when they are
called.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from modules.core.errors import OutOfMemory

# Activations in elements per pixel and row, counted on meta tensors with fused attention (Stable Diffusion 1.5: 130,
# SDXL: 79), doubled for the workspaces of convolutions.
SAMPLING_ELEMENTS = 260
# Widest moment of the autoencoder: ten full-size maps of its first level's 128 channels.
CODING_ELEMENTS = 1280
TILE_PIXELS = 512 * 512
LEAST_PIXELS = 512 * 512
# Cublas keeps some; the activations of 77 tokens are few.
ENCODING_BYTES = 16 * 1024**2
GIB = 1024**3


@dataclass(frozen=True)
class Component:
    """Something that moves: ``layers`` are the bytes of its layers in the order of the network."""

    key: Hashable
    layers: tuple[int, ...]

    def bytes(self, layers: frozenset[int] | None = None) -> int:
        """Return the bytes of all layers, or of those whose index is in ``layers``."""
        return sum(size for index, size in enumerate(self.layers) if layers is None or index in layers)

    def all(self) -> frozenset[int]:
        """Return the indices of all layers."""
        return frozenset(range(len(self.layers)))


@dataclass(frozen=True)
class Held:
    """A component, and the indices of its layers that are on the device."""

    component: Component
    layers: frozenset[int]

    @property
    def bytes(self) -> int:
        """The bytes on the device."""
        return self.component.bytes(self.layers)


@dataclass(frozen=True)
class Move:
    """From now on exactly ``layers`` of the component ``key`` are on the device; the others are at home."""

    key: Hashable
    layers: frozenset[int]


@dataclass(frozen=True)
class Schedule:
    """The moves in their order, and how many bytes are left for the work."""

    moves: tuple[Move, ...]
    working: int


def schedule(
    held: Sequence[Held], wanted: Sequence[Component], workings: Sequence[int], budget: int, keep: bool = True
) -> Schedule:
    """Return the moves after which ``wanted`` can work within ``budget`` bytes.

    ``held`` is what is on the device, the least recently used first. ``workings`` are the bytes that the work may
    take, the best first (a decode at once, in tiles); the first that is possible is taken. Without ``keep``
    everything else leaves. Raises ``OutOfMemory`` naming the least budget that would do.
    """
    working = next((bytes_ for bytes_ in workings if minimum(wanted, bytes_) <= budget), None)
    if working is None:
        raise _too_small(minimum(wanted, min(workings)), budget)
    targets = _residents(wanted, budget - working)
    room = budget - working - sum(item.bytes(targets[item.key]) for item in wanted) - _slot(wanted, targets)
    others = [item for item in held if item.component.key not in targets]
    theirs = sum(item.bytes for item in others)
    leaving = _leaving(others, theirs - room if keep else theirs)
    now = {item.component.key: item.layers for item in held}
    thinned = [Move(key, layers & targets[key]) for key, layers in now.items()
               if key in targets and not layers <= targets[key]]
    coming = [Move(item.key, targets[item.key]) for item in wanted
              if now.get(item.key, frozenset()) != targets[item.key]]
    return Schedule((*leaving, *thinned, *coming), working)


def minimum(wanted: Sequence[Component], working: int) -> int:
    """Return the least bytes with which ``wanted`` can work: one layer beside the first of each component."""
    first = sum(item.layers[0] for item in wanted if item.layers)
    return working + first + max((size for item in wanted for size in item.layers[1:]), default=0)


def sampling_bytes(pixels: int, itemsize: int) -> tuple[int, int]:
    """Return about what a call of a denoiser takes beside its weights: for ``pixels`` of all rows, and for few."""
    return pixels * SAMPLING_ELEMENTS * itemsize, min(pixels, LEAST_PIXELS) * SAMPLING_ELEMENTS * itemsize


def coding_bytes(pixels: int, itemsize: int) -> tuple[int, int]:
    """Return about what the autoencoder takes beside its weights: for ``pixels`` at once, and in tiles."""
    whole = pixels * CODING_ELEMENTS * itemsize
    return whole, min(whole, TILE_PIXELS * CODING_ELEMENTS * itemsize)


def _residents(wanted: Sequence[Component], room: int) -> dict[Hashable, frozenset[int]]:
    """Choose the layers that stay for the whole phase: all, or each component's first and the largest that fit.

    The first are always there, since a network says by its first parameter where it is.
    """
    if sum(item.bytes() for item in wanted) <= room:
        return {item.key: item.all() for item in wanted}
    chosen = {item.key: set(range(min(1, len(item.layers)))) for item in wanted}
    room -= sum(item.layers[0] for item in wanted if item.layers)
    left = sorted(((size, item.key, index) for item in wanted for index, size in enumerate(item.layers) if index),
                  key=lambda layer: -layer[0])
    slot = 0  # what bringing the largest of those that do not stay will take
    for (size, key, index), (following, _, _) in zip(left, [*left[1:], (0, None, 0)], strict=True):
        if size + (slot or following) <= room:
            chosen[key].add(index)
            room -= size
        else:
            slot = slot or size
    return {key: frozenset(layers) for key, layers in chosen.items()}


def _slot(wanted: Sequence[Component], targets: Mapping[Hashable, frozenset[int]]) -> int:
    """Return the bytes of the largest layer that has to be brought when it is called."""
    return max((size for item in wanted for index, size in enumerate(item.layers)
                if index not in targets[item.key]), default=0)


def _leaving(others: Sequence[Held], excess: int) -> list[Move]:
    """Return moves that free ``excess`` bytes, those used longest ago first, their last layers first."""
    moves = []
    for item in others:
        layers = set(item.layers)
        for index in sorted(item.layers, reverse=True):
            if excess <= 0:
                break
            layers.remove(index)
            excess -= item.component.layers[index]
        if len(layers) < len(item.layers):
            moves.append(Move(item.component.key, frozenset(layers)))
    return moves


def _too_small(least: int, budget: int) -> OutOfMemory:
    return OutOfMemory(
        f"This needs at least {least / GIB:.2f} GiB of the device's memory; {budget / GIB:.2f} GiB are allowed.",
        "A smaller size or batch size needs less; --vram-budget allows more.",
    )
