"""Networks of changes (LoRA and its kin) merged into a checkpoint: what of them changes which tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from modules.adapters.calls import Call
from modules.adapters.files import find_network, read_calls
from modules.adapters.fitting import Changes, fit
from modules.adapters.reading import Network, read_network
from modules.core.errors import InvalidModel, examples
from modules.families.places import places
from modules.library.files import Library, ModelFile
from modules.merging.models import Checkpoint
from modules.merging.parameters import Parameter, parameters

if TYPE_CHECKING:
    from modules.adapters.fitting import Delta


@dataclass(frozen=True)
class Called:
    """A network that takes part: what its tag asks for, its file, what that holds, and what fits the checkpoint."""

    call: Call
    file: ModelFile
    network: Network
    changes: Changes


@dataclass(frozen=True)
class Edit:
    """What is added to one parameter: each of ``deltas``, computed from the parameter before, so many times."""

    parameter: Parameter
    deltas: tuple[tuple[float, Delta], ...]

    def add(self, result: Tensor, before: Tensor) -> None:
        """Add to ``result``, the parameter's checkpoint tensor, what is computed from that as it was ``before``."""
        own, original = self.parameter.of(result), self.parameter.of(before)
        for scale, delta in self.deltas:
            own += delta(original) * scale


Edits = Mapping[str, tuple[Edit, ...]]


def called(text: str, library: Library, model: Checkpoint) -> tuple[Called, ...]:
    """Return the networks that the tags of ``text`` call, fitted to ``model``.

    Raises ``InvalidRequest``, ``NotFound``, and ``InvalidModel`` for a network that is for another kind of model.
    """
    known, found = places(model.header, model.variant), []
    for call in read_calls(text):
        file = find_network(call.name, library)
        network = read_network(Path(file.path))
        changes = fit(network, known, file.name, call.rank)
        if not changes.fitting:
            names = examples(changes.foreign or changes.unread)
            raise InvalidModel(f"{file.name} does not fit {model.name}{f' ({names})' if names else ''}.",
                               "It is for another kind of model.")
        found.append(Called(call, file, network, changes))
    return tuple(found)


def edits(networks: Sequence[Called], model: Checkpoint) -> Edits:
    """Return what ``networks`` change, by the checkpoint's tensors."""
    deltas: dict[tuple[str, str], list[tuple[float, Delta]]] = {}
    for network in networks:
        for change in network.changes.fitting:
            scale = network.call.weight(change.place.component, change.place.block)
            for kind, delta in change.deltas().items() if scale else ():
                deltas.setdefault((change.place.component, f"{change.place.path}.{kind}"), []).append((scale, delta))
    found: dict[str, tuple[Edit, ...]] = {}
    for parameter in parameters(model):
        own = deltas.get((parameter.place.component, parameter.name))
        if own:
            found[parameter.tensor] = (*found.get(parameter.tensor, ()), Edit(parameter, tuple(own)))
    return found


def of_target(several: Iterable[Edit], name: str) -> tuple[Edit, ...]:
    """Return those of the edits of a tensor that change its part with the ``name`` of a folder's text encoder."""
    bare = name.removeprefix("text_model.")
    return tuple(replace(edit, parameter=replace(edit.parameter, part="")) for edit in several
                 if edit.parameter.name == bare)


def warnings(networks: Iterable[Called]) -> tuple[str, ...]:
    """Return what of ``networks`` was left out."""
    return tuple(f"{one.file.name}: {len(names)} modules {reason} and were left out ({examples(names)})."
                 for one in networks for reason, names in (
                     ("do not fit the model", one.changes.foreign),
                     ("are of no known kind or of rank 0", one.changes.unread)) if names)
