"""Upscalers from model files, as hires fix, img2img and the Extras tab use them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from modules.core.errors import OutOfMemory
from modules.imaging.resize import Upscaler
from modules.library.files import Library, ModelFile
from modules.library.upscalers import upscalers
from modules.runtime.device import Placement, available
from modules.runtime.exhaustion import is_out_of_memory
from modules.runtime.memory import Models
from modules.upscaling.networks import COMPONENT, Network, load_network
from modules.upscaling.pixels import Picture, opened, shown
from modules.upscaling.rows import collected, resized
from modules.upscaling.tiles import Run, Tiles, in_tiles

# Called after each tile with how many are done and how many there are in all; raises to stop.
Advance = Callable[[int, int], None]

SIDES = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32)
# Larger tiles make nothing faster on a CPU.
MAX_SIDE_ON_CPU = 256
# A network that makes too little of a picture is asked again, as often as in A1111.
MAX_PASSES = 3


def ignored(done: int, total: int) -> None:
    """Take note of nothing."""


@dataclass(frozen=True)
class Shelf:
    """Where loaded networks are kept, and where they compute."""

    models: Models
    placement: Placement

    def network(self, file: ModelFile) -> Network:
        """Return the network in ``file``, loaded if it is not held; raises ``InvalidModel``."""
        status = os.stat(file.path)
        half = self.placement.denoiser == torch.float16
        return self.models.get((COMPONENT, file.path, status.st_size, status.st_mtime_ns),
                               lambda: load_network(file.path, half), status.st_size)

    def tile(self, network: Network, width: int, height: int) -> int:
        """Bring ``network`` to where it computes and return the side of the largest tile that memory suffices for."""
        device = self.placement.device
        whole = max(width, height)
        limit = MAX_SIDE_ON_CPU if device.type == "cpu" else SIDES[0]
        sides = [side for side in SIDES if side <= limit] if network.splits else [whole]
        workings = [min(side, whole) ** 2 * network.bytes_per_pixel() for side in sides]
        free = self.models.need(network, (COMPONENT,), workings)
        if device == self.placement.home:
            free = available(device) // 2
        return next((side for side, bytes_ in zip(sides, workings, strict=True) if bytes_ <= free), sides[-1])


@dataclass(frozen=True)
class NetworkUpscaler:
    """The upscaler in a model file; it is loaded when it is first used."""

    name: str
    file: ModelFile
    shelf: Shelf

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return ``image`` in ``width`` by ``height`` pixels; raises ``InvalidModel`` or ``OutOfMemory``."""
        return shown(self.enlarged(opened(image), (width, height)))

    def enlarged(self, picture: Picture, size: tuple[int, int], advance: Advance = ignored) -> Picture:
        """Return ``picture`` at ``size``: by the network until it is as large, then by Lanczos, its alpha by Lanczos.

        A network is asked once at least where the size stays, so that one that only cleans does.
        """
        network = self.shelf.network(self.file)
        pixels, alpha = picture.pixels, picture.alpha
        for made in range(MAX_PASSES):
            height, width = pixels.shape[:2]
            covers = width >= size[0] and height >= size[1]
            if covers and (made or (width, height) != size):
                break
            full = width * network.scale, height * network.scale
            last = network.scale == 1 or made + 1 == MAX_PASSES or (full[0] >= size[0] and full[1] >= size[1])
            pixels = self._pass(network, pixels, size if last else full, advance)
            if last:
                break
        return Picture(resized(pixels, size), None if alpha is None else resized(alpha, size))

    def _pass(self, network: Network, pixels: np.ndarray, size: tuple[int, int], advance: Advance) -> np.ndarray:
        """Return ``pixels`` once through the network and at ``size``; where memory ends, in tiles half as large."""
        height, width = pixels.shape[:2]
        device, scale = self.shelf.placement.device, network.scale
        side = self.shelf.tile(network, width, height)
        while True:
            tiles = Tiles(side)
            total = tiles.count(width, height)
            runs = _counted(lambda tile: network.run(tile, device), total, advance)
            try:
                rows = in_tiles(runs, pixels, tiles, scale)
                return collected(rows, (width * scale, height * scale), size, pixels.dtype)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self.shelf.models.release()
            if side <= SIDES[-1] or not network.splits:
                raise OutOfMemory(f"Out of memory while {self.name} enlarged a picture of {width}x{height}.",
                                  "A smaller picture, or another upscaler, needs less.")
            side //= 2


def _counted(run: Run, total: int, advance: Advance) -> Run:
    done = 0

    def counted(tile: np.ndarray) -> np.ndarray:
        nonlocal done
        result = run(tile)
        done += 1
        advance(done, total)
        return result

    advance(0, total)
    return counted


class Upscalers(Mapping[str, Upscaler]):
    """Every upscaler of pixels by name: ``others``, then those in the library's folders, listed anew at every look."""

    def __init__(self, library: Library, shelf: Shelf, others: Mapping[str, Upscaler]) -> None:
        self._library = library
        self._shelf = shelf
        self._others = others

    def __getitem__(self, name: str) -> Upscaler:
        if name in self._others:
            return self._others[name]
        return NetworkUpscaler(name, upscalers(self._library)[name], self._shelf)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._others, **upscalers(self._library)})

    def __len__(self) -> int:
        return len(list(iter(self)))
