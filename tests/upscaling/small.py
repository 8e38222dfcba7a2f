"""Small networks with seeded weights, as files and as ncnn writes them, and what the tests of upscalers need."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.upscalers import PACKAGE
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.upscaling.registry import Upscalers
from modules.upscaling.upscaler import Shelf


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where ``package`` is not installed; where everything is to be tested it has to be, if there is one."""
    required = os.environ.get("CI") and (package != PACKAGE or sys.version_info < (3, 13))
    missing = importlib.util.find_spec(package) is None and not required
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def compact(scale: int = 2, features: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the weights of a compact Real-ESRGAN network: three convolutions that see three pixels to each side."""
    noise = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise) * 0.15

    state = {}
    for i, (outputs, inputs) in enumerate([(features, 3), (features, features), (3 * scale**2, features)]):
        state |= {f"body.{2 * i}.weight": weights(outputs, inputs, 3, 3), f"body.{2 * i}.bias": weights(outputs)}
        if i < 2:
            state[f"body.{2 * i + 1}.weight"] = weights(features).abs()
    return state


def esrgan(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the weights of ESRGAN with one block of few features, four times, under the names of Real-ESRGAN."""
    noise = torch.Generator().manual_seed(seed)
    shapes = {"conv_first": (8, 3)}
    for j in (1, 2, 3):
        shapes |= {f"body.0.rdb{j}.conv{k}": (32 if k < 5 else 8, 8 + 32 * (k - 1)) for k in range(1, 6)}
    shapes |= {name: (8, 8) for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr")} | {"conv_last": (3, 8)}
    state = {}
    for name, (outputs, inputs) in shapes.items():
        state[f"{name}.weight"] = torch.randn((outputs, inputs, 3, 3), generator=noise) * 0.1
        state[f"{name}.bias"] = torch.randn(outputs, generator=noise) * 0.1
    return state


def picture(width: int, height: int, seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """Return a picture of noise and waves [height, width, 3]."""
    noise = np.random.default_rng(seed).random((height, width, 3))
    waves = np.sin(np.arange(width) / 5)[None, :, None] * np.cos(np.arange(height) / 7)[:, None, None]
    top = np.iinfo(dtype).max
    return np.rint((0.35 + 0.3 * noise + 0.3 * waves).clip(0, 1) * top).astype(dtype)


def shelf_of(root: Path, **files: dict[str, torch.Tensor]) -> Upscalers:
    """Return the upscalers of an installation at ``root`` with ``files`` by name."""
    library = Library(folders(root, {}), HashCache(root / "hashes.sqlite3"))
    place = library.folders.esrgan[0]
    place.mkdir(parents=True, exist_ok=True)
    for name, state in files.items():
        save_file(state, place / f"{name}.safetensors")
    return Upscalers(library, Shelf(Models(1 << 30), Placement()), {})


def write_ncnn(path: Path, layers: list[str], arrays: list[np.ndarray], half: bool = False) -> Path:
    """Write ``path`` (``.param``) and its ``.bin``; arrays of four dimensions have a tag before them."""
    path.write_text("\n".join(["7767517", f"{len(layers)} {len(layers) + 1}", *layers]) + "\n")
    data = b""
    for array in arrays:
        tagged = array.ndim == 4
        kind = "<f2" if half and tagged else "<f4"
        tag = (0x01306B47 if half else 0).to_bytes(4, "little") if tagged else b""
        content = array.astype(kind).tobytes()
        data += tag + content + bytes(-len(content) % 4)
    path.with_suffix(".bin").write_bytes(data)
    return path


def compact_as_ncnn(path: Path, state: dict[str, torch.Tensor], scale: int = 2, half: bool = False) -> Path:
    """Write a compact network as ncnn's converter does."""
    layers, arrays = ["Input input 0 1 data", "Split split 1 2 data a b"], []
    for name, weight in state.items():
        arrays.append(weight.numpy())
        if weight.ndim == 4:
            layers.append(f"Convolution {name} 1 1 a a 0={len(weight)} 1=3 4=1 5=1 6={weight.numel()}")
        elif name.endswith(".weight"):
            layers.append(f"PReLU {name} 1 1 a a 0={len(weight)}")
    layers += [f"PixelShuffle shuffle 1 1 a a 0={scale}", f"Interp rise 1 1 b c 0=1 1={scale}.0 2={scale}.0",
               "BinaryOp add 2 1 a c output"]
    return write_ncnn(path, layers, arrays, half)
