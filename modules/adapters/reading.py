"""What a network file holds for each module, in every layout that people share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel
from modules.library.headers import inert_globals
from modules.library.network_names import DOWN, UP, ordered, split

if TYPE_CHECKING:
    from torch import Tensor

BUNDLED = "bundle_emb."


@dataclass(frozen=True)
class Network:
    """What a file holds: tensors by module and by their names there, as they are in the file (mapped).

    ``words`` are bundled embeddings, by word and part (``clip_l``, ``clip_g``, empty for the only encoder's).
    ``in_order`` are the pairs of files that number their modules, by component. ``unknown`` are names that nothing
    is known of.
    """

    modules: Mapping[str, Mapping[str, Tensor]]
    words: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    in_order: Mapping[str, Sequence[Mapping[str, Tensor]]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def read_network(path: Path) -> Network:
    """Return what a file holds; raises ``InvalidModel`` for what is no network, or holds NaN or infinity."""
    from modules.runtime.weights import read_object

    data = read_object(path, inert_globals())
    network = _numbered(data) if isinstance(data, list) else _named(data, path.name)
    if not (network.modules or network.words or network.in_order):
        raise InvalidModel(f"{path.name} holds no network of a known kind.", "It may be another kind of model.")
    parts = (*network.modules.values(), *network.words.values(),
             *(part for several in network.in_order.values() for part in several))
    if not all(bool(tensor.isfinite().all()) for part in parts for tensor in part.values()):
        raise InvalidModel(f"{path.name} holds NaN or infinity.", "Download it again.")
    return network


def _numbered(tensors: Sequence[Any]) -> Network:
    """Files of lora_diffusion are a list: up and down of one module after the other."""
    pairs = [{UP: up, DOWN: down} for up, down in zip(tensors[::2], tensors[1::2], strict=False)]
    return Network({}, in_order={"unet": pairs} if all(hasattr(one, "shape") for one in tensors) else {})


def _named(data: Any, file: str) -> Network:
    if not isinstance(data, Mapping):
        raise InvalidModel(f"{file} holds no named weights.", "It may be another kind of model.")
    data = data.get("state_dict", data)
    modules: dict[str, dict[str, Tensor]] = {}
    words: dict[str, dict[str, Tensor]] = {}
    numbered: dict[str, dict[int, dict[str, Tensor]]] = {}
    unknown: list[str] = []
    for key, tensor in data.items():
        if not isinstance(key, str) or not hasattr(tensor, "shape"):
            continue
        if key.startswith(BUNDLED):
            word, _, part = key.removeprefix(BUNDLED).partition(".")
            words.setdefault(word, {})["" if part.startswith("string_to_param") else part] = tensor
        elif number := ordered(key):
            numbered.setdefault(number[0], {}).setdefault(number[1], {})[number[2]] = tensor
        elif place := split(key):
            modules.setdefault(place[0], {})[place[1]] = tensor
        else:
            unknown.append(key)
    in_order = {component: [pairs[number] for number in sorted(pairs)] for component, pairs in numbered.items()}
    return Network(modules, words, in_order, tuple(unknown))
