"""Where weights and biases of a checkpoint's modules are among its tensors, as networks of changes name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from modules.families import ldm
from modules.families.open_clip import THIRDS
from modules.families.places import Place, places
from modules.merging.models import Checkpoint

_PART = re.compile(r"(.+in_proj_(?:weight|bias))\.([qkv])")
TRANSPOSED = "T"


@dataclass(frozen=True)
class Parameter:
    """The ``weight`` or ``bias`` (``kind``) of the module at ``place``.

    ``tensor`` is the checkpoint's, under its single file's name. ``part`` is what of that the parameter is: ``q``,
    ``k`` or ``v``, ``T`` for the transpose, nothing for all of it.
    """

    place: Place
    kind: str
    tensor: str
    part: str = ""

    @property
    def name(self) -> str:
        """The name in diffusers' or transformers' network."""
        return f"{self.place.path}.{self.kind}"

    def of(self, tensor: Tensor) -> Tensor:
        """Return the parameter as a view of the checkpoint's tensor, which has its original shape."""
        if self.part in THIRDS:
            return tensor.tensor_split(len(THIRDS))[THIRDS.index(self.part)]
        return tensor.T if self.part == TRANSPOSED else tensor


def parameters(model: Checkpoint) -> tuple[Parameter, ...]:
    """Return the parameters of ``model``'s denoiser and text encoders that it has, by the order of the networks."""
    known = dict.fromkeys(places(model.header, model.variant).values())
    kinds = [(place, kind) for place in known for kind in ("weight", "bias") if getattr(place, kind) is not None]
    names = _names(model)
    found = (_parameter(place, kind, names[place.component](f"{place.path}.{kind}"))
             for place, kind in kinds if place.component in names)
    return tuple(one for one in found if one.tensor in model.tensors)


def _names(model: Checkpoint) -> Mapping[str, Any]:
    """Return, by component, what turns a name of the network into one among the checkpoint's tensors."""
    return dict(_found_names(model))


def _found_names(model: Checkpoint) -> Iterator[tuple[str, Any]]:
    family = model.latent_diffusion
    unet = model.variant.components["unet"]
    modules, tensors = ldm.unet_modules(unet), cast(Mapping[str, Tensor], model.tensors)
    yield "unet", lambda name: ldm.UNET_PREFIX + ldm.rename(name, modules)
    for tower in family.towers(unet):
        prefix = tower.find(tensors, tower.prefixes)
        if prefix is not None:
            yield tower.component, tower.source(tensors, prefix).name


def _parameter(place: Place, kind: str, name: str) -> Parameter:
    part = _PART.fullmatch(name)
    if part is not None:
        return Parameter(place, kind, part[1], part[2])
    if name.endswith(".T"):
        return Parameter(place, kind, name.removesuffix(".T"), TRANSPOSED)
    return Parameter(place, kind, name)
