"""Upscalers from files of super-resolution networks, as hires fix, img2img and the Extras tab use them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image

from modules.core.settings import Settings
from modules.imaging.upscalers import Occasion
from modules.library.files import ModelFile
from modules.runtime.device import Placement, available
from modules.runtime.memory import Models
from modules.upscaling.networks import COMPONENT, Network, load_network
from modules.upscaling.passes import Tiling, enlarged, through
from modules.upscaling.pixels import Picture, opened, shown
from modules.upscaling.tiles import Run, Tiles

SIDES = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32)
# Larger tiles make nothing faster on a CPU.
MAX_SIDE_ON_CPU = 256
# Side and overlap that A1111's settings ask for, by spandrel's name of the architecture; all others have ESRGAN's.
TILE_SETTINGS: Mapping[str, Callable[[Settings], tuple[int, int]]] = MappingProxyType({
    "ESRGAN": lambda settings: (settings.ESRGAN_tile, settings.ESRGAN_tile_overlap),
    "DAT": lambda settings: (settings.DAT_tile, settings.DAT_tile_overlap),
    "SwinIR": lambda settings: (settings.SWIN_tile, settings.SWIN_tile_overlap),
    "Swin2SR": lambda settings: (settings.SWIN_tile, settings.SWIN_tile_overlap),
    "SCUNet": lambda settings: (settings.SCUNET_tile, settings.SCUNET_tile_overlap),
})


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
                               lambda: load_network(file.path, half, self.placement.home), status.st_size)

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
    """The upscaler in a network's file; it is loaded when it is first used."""

    name: str
    file: ModelFile
    shelf: Shelf
    occasion: Occasion = Occasion()

    def told(self, occasion: Occasion) -> NetworkUpscaler:
        """Return the upscaler for ``occasion``: its settings say how large tiles are, each tile is told."""
        return dataclasses.replace(self, occasion=occasion)

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return ``image`` in ``width`` by ``height`` pixels; raises ``InvalidModel`` or ``OutOfMemory``."""
        return shown(self.enlarged(opened(image), (width, height)))

    def enlarged(self, picture: Picture, size: tuple[int, int]) -> Picture:
        """Return ``picture`` at ``size`` (width, height)."""
        network = self.shelf.network(self.file)
        return enlarged(picture, size, network.scale, lambda pixels, goal: self._pass(network, pixels, goal))

    def _pass(self, network: Network, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return ``pixels`` once through the network and at ``size``."""
        height, width = pixels.shape[:2]
        tiles = tiles_of(self.occasion.settings, network.architecture, self.shelf.tile(network, width, height))
        if not network.splits:
            tiles = Tiles(max(width, height))
        smallest = SIDES[-1] if network.splits else tiles.side
        tiling = Tiling(tiles, network.scale, smallest, self.shelf.models.release)

        def begin(tiles: Tiles) -> Run:
            return self._counted(network, tiles.count(width, height))
        return through(self.name, pixels, size, tiling, begin)

    def _counted(self, network: Network, total: int) -> Run:
        done, advance, device = 0, self.occasion.advance, self.shelf.placement.device

        def run(tile: np.ndarray, left: int, top: int) -> np.ndarray:
            nonlocal done
            result = network.run(tile, device)
            done += 1
            advance(done, total)
            return result

        advance(0, total)
        return run


def tiles_of(settings: Settings, architecture: str, automatic: int) -> Tiles:
    """Return the tiles that the settings ask for, of side ``automatic`` where they leave it open.

    None is smaller than what is tried where memory ends: a network would be called for every few pixels.
    """
    side, overlap = TILE_SETTINGS.get(architecture, TILE_SETTINGS["ESRGAN"])(settings)
    return Tiles(max(side, SIDES[-1]) if side else automatic, overlap)
