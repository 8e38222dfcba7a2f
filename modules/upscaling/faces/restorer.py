"""Faces restored one after the other, as engine and Extras have it done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from modules.imaging.upscalers import Advance
from modules.library.face_restorers import FaceFiles, face_files
from modules.library.files import Library
from modules.upscaling.faces import alignment, detection, parsenet
from modules.upscaling.faces.networks import PARSENET, RETINAFACE, FaceShelf
from modules.upscaling.pixels import Picture, opened, shown

# From a face (float32, 0 to 1, [side, side, 3]) to the face restored, and to where it takes the picture's place.
Restore = Callable[[np.ndarray], np.ndarray]
Mask = Callable[[np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class NetworkFaceRestorer:
    """The face restorer in a model file; what it needs is loaded when it is first used."""

    name: str
    files: FaceFiles
    shelf: FaceShelf

    def restore(self, image: Image.Image, fidelity: float, advance: Advance) -> Image.Image:
        """Return ``image`` with its faces restored; raises ``InvalidModel`` or ``OutOfMemory``."""
        return shown(self.restored(opened(image), fidelity, advance))

    def restored(self, picture: Picture, fidelity: float, advance: Advance) -> Picture:
        """Return ``picture``, of 8 or 16 bits, with its faces restored; its alpha stays."""
        device = self.shelf.placement.device
        found = self.shelf.run(self.files.detector, RETINAFACE,
                               lambda network: detection.faces(network, picture.pixels, device))
        if not found:
            advance(1, 1)
            return picture
        side = self.shelf.run(self.files.restorer, self.name, lambda network: int(network.side))
        pixels = with_faces(picture.pixels, found, side, lambda face: self._restored(face, fidelity), self._mask,
                            advance)
        return Picture(pixels, picture.alpha)

    def _restored(self, face: np.ndarray, fidelity: float) -> np.ndarray:
        x = _tensor(face, self.shelf.placement.device)
        made = self.shelf.run(self.files.restorer, self.name, lambda network: network(x, fidelity))
        return np.ascontiguousarray(made[0].permute(1, 2, 0).float().cpu().numpy() / 2 + 0.5).clip(0, 1)

    def _mask(self, face: np.ndarray) -> np.ndarray | None:
        if self.files.parser is None:
            return None
        x = torch.nn.functional.interpolate(_tensor(face, self.shelf.placement.device), (parsenet.SIDE, parsenet.SIDE),
                                            mode="bilinear")
        parts = self.shelf.run(self.files.parser, PARSENET, lambda network: network(x)[0].argmax(0).cpu().numpy())
        return alignment.soft_parts(~np.isin(parts, parsenet.OUTSIDE), face.shape[0])


def find_restorer(library: Library, shelf: FaceShelf, name: str) -> NetworkFaceRestorer:
    """Return the face restorer ``name``; raises ``InvalidRequest`` naming the file that is missing."""
    return NetworkFaceRestorer(name, face_files(library, name), shelf)


def with_faces(pixels: np.ndarray, found: Sequence[np.ndarray], side: int, restore: Restore, mask: Mask,
               advance: Advance) -> np.ndarray:
    """Return ``pixels`` with the faces whose landmarks [5, 2] are ``found`` restored, one after the other.

    Each face is taken from ``pixels`` as they are given, so that neighbours do not see each other restored.
    """
    result = pixels.copy()
    advance(0, len(found))
    for number, landmarks in enumerate(found, 1):
        matrix = alignment.alignment(landmarks, side)
        box = None if matrix is None else alignment.surroundings(matrix, side, (pixels.shape[1], pixels.shape[0]))
        if matrix is not None and box is not None:
            face = restore(alignment.taken(pixels, box, matrix, side))
            alignment.put_back(result, box, matrix, face, mask(face))
        advance(number, len(found))
    return result


def _tensor(face: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return a face as networks see it: [1, 3, side, side] from -1 to 1."""
    return torch.from_numpy(face.transpose(2, 0, 1).copy())[None].to(device) * 2 - 1
