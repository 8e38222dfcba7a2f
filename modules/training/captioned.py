"""Pictures of one's own as training data: files with their captions beside them, as kohya-ss' sd-scripts read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps

from modules.core.errors import NotFound

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """A picture's file and its captions, at least one."""

    path: Path
    captions: tuple[str, ...]


def found(folder: Path) -> list[Picture]:
    """Return the pictures of ``folder`` by name: captions are the lines of the ``.txt`` of its name, else its name.

    Raises ``NotFound`` where there is none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NotFound(f"There are no pictures in {folder}.", f"They end in {', '.join(SUFFIXES)}.")
    return [Picture(path, _captions(path)) for path in paths]


def _captions(path: Path) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    lines = beside.read_text("utf-8").splitlines() if beside.is_file() else []
    return tuple(line.strip() for line in lines if line.strip()) or (path.stem.replace("_", " "),)


def batches(pictures: Sequence[Picture], size: int, count: int = 8) -> Iterator[torch.Tensor]:
    """Yield the middles of the pictures [n, 3, size, size] in -1..1, up to ``count`` at a time, on white."""
    for start in range(0, len(pictures), count):
        arrays = [numpy.asarray(squared(one.path, size)) for one in pictures[start : start + count]]
        yield torch.from_numpy(numpy.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def squared(path: Path, size: int) -> Image.Image:
    """Return the middle of a picture as RGB in ``size`` by ``size`` pixels, upright."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert("RGBA")
    ground = Image.new("RGBA", picture.size, (*BACKGROUND, 255))
    flat = Image.alpha_composite(ground, picture).convert("RGB")
    return ImageOps.fit(flat, (size, size), Image.Resampling.LANCZOS)
