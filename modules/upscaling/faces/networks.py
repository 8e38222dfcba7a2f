"""The networks of face restoration from files: read safely, recognised by their weights, on their device when called.

They compute in float32: GFPGAN's modulated weights and CodeFormer's codes leave the range of half precision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from modules.core.errors import InvalidModel
from modules.library.face_restorers import CODEFORMER, GFPGAN
from modules.library.files import ModelFile
from modules.runtime.device import Placement
from modules.runtime.exhaustion import is_out_of_memory, out_of_memory
from modules.runtime.memory import Models
from modules.upscaling.architectures import spandrel
from modules.upscaling.faces.codeformer import CodeFormer
from modules.upscaling.faces.parsenet import ParseNet
from modules.upscaling.faces.retinaface import RetinaFace
from modules.upscaling.networks import damaged, read_state

T = TypeVar("T")
State = dict[str, torch.Tensor]
Build = Callable[[State], torch.nn.Module]

COMPONENT = "face"
RETINAFACE, PARSENET = "RetinaFace", "ParseNet"
# About what one call takes beside the weights, in bytes.
WORKING = 1 << 30
# The pixels of a published restorer's side.
SIDE = 512

_COUNTER = "num_batches_tracked"


class GFPGAN512(torch.nn.Module):
    """GFPGAN as spandrel knows it (the versions 1.2 to 1.4), with the file's own noise: a face is always the same."""

    side = SIDE

    def __init__(self, state: State) -> None:
        super().__init__()
        library = spandrel()
        descriptor = library.MAIN_REGISTRY.load(state)
        if descriptor.architecture.id != "GFPGAN":
            raise KeyError(descriptor.architecture.id)
        self.network = descriptor.model

    def forward(self, x: torch.Tensor, fidelity: float) -> torch.Tensor:
        """Return faces [batch, 3, 512, 512] from -1 to 1, restored; it cannot be told how far to go."""
        restored: torch.Tensor = self.network(x, return_rgb=False, randomize_noise=False)[0]
        return restored


@dataclass(eq=False)
class FaceNetwork:
    """A loaded network, as the owner of models keeps it."""

    modules: Mapping[str, Any]


@dataclass(frozen=True)
class FaceShelf:
    """Where loaded networks are kept, and where they compute."""

    models: Models
    placement: Placement

    def run(self, file: ModelFile, kind: str, call: Callable[[Any], T]) -> T:
        """Return what ``call`` makes of the network in ``file``, which is brought to its device.

        ``kind`` is the name of a restorer, ``RETINAFACE`` or ``PARSENET``. Where memory ends, all else leaves and it
        is tried once more. Raises ``InvalidModel`` and ``OutOfMemory``.
        """
        status = os.stat(file.path)
        key = (COMPONENT, file.path, status.st_size, status.st_mtime_ns)
        loaded = self.models.get(key, lambda: load(Path(file.path), kind, self.placement.home), status.st_size)
        for _ in range(2):
            self.models.need(loaded, (COMPONENT,), (WORKING,))
            try:
                with torch.inference_mode():
                    return call(loaded.modules[COMPONENT])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self.models.release()
        raise out_of_memory(f"{kind} looked at a face", SIDE, SIDE, 1, self.placement.device)


def load(path: Path, kind: str, home: torch.device | str = "cpu") -> FaceNetwork:
    """Return the network of ``kind`` in a file, its weights at ``home``; nothing in the file is run.

    Raises ``InvalidModel`` where it is damaged, unsafe or of another kind.
    """
    build, marks = _KINDS[kind]
    state = {name: weight.float() if weight.is_floating_point() else weight
             for name, weight in read_state(path).items()}
    if not all(mark in state for mark in marks):
        raise InvalidModel(f"{path.name} is no file of {kind}.", "Download it again, or take it away.")
    try:
        module = build(state)
    except Exception as error:  # whatever a file whose names promise an architecture lacks
        raise damaged(path.name, error) from error
    return FaceNetwork({COMPONENT: module.to(home).requires_grad_(False).eval()})


def _filled(network: type[torch.nn.Module]) -> Build:
    """Return how ``network`` is built from a state dict whose tensors become its own."""
    def build(state: State) -> torch.nn.Module:
        with torch.device("meta"):
            module = network(state)
        # Counters of training, which older files lack.
        counters = {name: torch.tensor(0) for name in module.state_dict() if name.endswith(_COUNTER)}
        module.load_state_dict({**counters, **state}, assign=True)
        return module
    return build


_KINDS: Mapping[str, tuple[Build, tuple[str, ...]]] = MappingProxyType({
    CODEFORMER: (_filled(CodeFormer), ("position_emb", "quantize.embedding.weight", "encoder.blocks.0.weight")),
    GFPGAN: (GFPGAN512, ("stylegan_decoder.style_mlp.1.weight", "toRGB.0.weight")),
    RETINAFACE: (_filled(RetinaFace), ("body.conv1.weight", "ssh1.conv3X3.0.weight")),
    PARSENET: (_filled(ParseNet), ("encoder.0.conv2d.weight", "out_mask_conv.conv2d.weight")),
})
