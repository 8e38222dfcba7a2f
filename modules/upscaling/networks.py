"""Super-resolution networks from files: read safely, recognised by their weights, run as spandrel runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modules.core.errors import InvalidModel
from modules.library.pickle_format import inert_globals
from modules.runtime.weights import is_finite, read_object
from modules.upscaling import ncnn
from modules.upscaling.architectures import spandrel

COMPONENT = "upscaler"

# Layers without weights are numbered as well: the largest number per weight that a file may have.
SPARSEST = 16
_OTHER_FILE = "Files of ESRGAN, Real-ESRGAN, SwinIR, DAT, HAT, ScuNET and their like are upscalers."


@dataclass(eq=False)
class Network:
    """A loaded network: ``descriptor`` is spandrel's, ``modules`` the network by its component's name."""

    name: str
    descriptor: Any
    modules: Mapping[str, Any]

    @property
    def scale(self) -> int:
        """By what the network enlarges; 1 for one that cleans."""
        return int(self.descriptor.scale)

    @property
    def architecture(self) -> str:
        """What spandrel calls the architecture: ``ESRGAN``, ``DAT``, ``SwinIR`` and so on."""
        return str(self.descriptor.architecture.id)

    @property
    def splits(self) -> bool:
        """Whether a picture may be given in parts: not to a network that sees all of it, or splits it by itself."""
        return str(self.descriptor.tiling.name) != "INTERNAL"

    def bytes_per_pixel(self) -> int:
        """Return about how much memory one pixel of the input takes while the network runs."""
        widest = max((weight.shape[0] for weight in self._module.parameters() if weight.ndim > 1), default=1)
        return 4 * widest * max(4, self.scale**2) * self.descriptor.dtype.itemsize

    def run(self, pixels: np.ndarray, device: torch.device) -> np.ndarray:
        """Return ``pixels`` (float32, 0 to 1, [height, width, 3]) enlarged, in the same form."""
        x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        x = x.to(device, self.descriptor.dtype)
        if self.descriptor.input_channels == 1:  # a network for grey pictures sees one colour after the other
            y = torch.cat([self.descriptor(x[:, i:i + 1].clone()) for i in range(x.shape[1])], 1)
        else:
            y = self.descriptor(x)
        return np.asarray(y[0].permute(1, 2, 0).float().cpu())

    @property
    def _module(self) -> torch.nn.Module:
        module: torch.nn.Module = self.modules[COMPONENT]
        return module


def load_network(path: str | Path, half: bool = False, home: torch.device | str = "cpu") -> Network:
    """Load the network in a file, its weights at ``home``; with ``half`` in float16, where its architecture can.

    Nothing in the file is run. Raises ``InvalidModel`` where it is damaged, unsafe or no upscaler.
    """
    path = Path(path)
    descriptor = _recognised(read_state(path), path.name)
    if half and descriptor.supports_half:
        descriptor.half()
    module = descriptor.to(home).model.requires_grad_(False).eval()
    return Network(path.stem, descriptor, {COMPONENT: module})


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a file by name, taken out of what they are wrapped in.

    Nothing in the file is run. Raises ``InvalidModel`` where it is damaged, unsafe, holds no weights or holds NaN.
    """
    state = ncnn.read(path) if path.suffix == ncnn.SUFFIX else read_object(path, inert_globals())
    if not isinstance(state, Mapping):
        raise InvalidModel(f"{path.name} holds no named weights.", _OTHER_FILE)
    state = spandrel().canonicalize_state_dict(dict(state))
    state = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    broken = next((key for key, value in state.items() if value.is_floating_point() and value.numel()
                   and not is_finite(value)), None)
    if broken is not None:
        raise InvalidModel(f"{path.name} is not usable: {broken} holds NaN or infinity.", "Download it again.")
    return state


def damaged(name: str, error: Exception) -> InvalidModel:
    """Return what to raise where the names in the file ``name`` promise what it lacks, as ``error`` says."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return InvalidModel(f"{name} is damaged: {reason[0][:200]}", "Download it again.")


def _recognised(state: dict[str, torch.Tensor], name: str) -> Any:
    library = spandrel()
    largest = max((int(part) for key in state for part in key.split(".") if part.isdecimal()), default=0)
    if largest > SPARSEST * len(state):  # an architecture is built with as many layers as the last one's number says
        raise InvalidModel(f"{name} is damaged: it has {len(state)} weights, and a layer {largest:,}.", _OTHER_FILE)
    try:
        descriptor = library.MAIN_REGISTRY.load(state)
    except library.UnsupportedModelError:
        raise InvalidModel(f"{name} is no upscaler that is known here.", _OTHER_FILE) from None
    except Exception as error:  # whatever a file whose names promise an architecture lacks
        raise damaged(name, error) from error
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not isinstance(descriptor, library.ImageModelDescriptor) or descriptor.purpose not in ("SR", "Restoration"):
        raise InvalidModel(f"{name} is a network for {descriptor.purpose}, no upscaler.", _OTHER_FILE)
    if channels not in ((1, 1), (3, 3)):
        raise InvalidModel(f"{name} has {channels[0]} channels and makes {channels[1]}: it is not for pictures.")
    return descriptor
