"""Compares all installed upscalers on one picture: `python -m benchmarks.upscalers [PICTURE] [--data-dir DIR]`.

The picture is made four times smaller, enlarged again by each, and compared with what it was. A table goes to the
terminal, the pictures side by side into a file.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from modules.core.errors import DarkroomError
from modules.imaging.resize import RESAMPLERS, Upscaler
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.runtime import device
from modules.runtime.memory import Models, accelerator
from modules.upscaling.registry import Upscalers
from modules.upscaling.upscaler import Shelf

ROOT = Path(__file__).resolve().parents[1]
SCALE = 4
LABEL = 16


@dataclass(frozen=True)
class Row:
    """One upscaler: its picture, how near that comes to the original in decibels, and the seconds it took."""

    name: str
    image: Image.Image
    decibels: float
    seconds: float


def installed(data_dir: Path) -> Upscalers:
    """Return all upscalers of the installation whose files are in ``data_dir``."""
    info = device.detect({})
    placement = device.choose(info, {})
    library = Library(folders(ROOT, {"data_dir": str(data_dir)}), HashCache(data_dir / "cache" / "hashes.sqlite3"))
    return Upscalers(library, Shelf(Models(8 * 1024**3, accelerator(placement, info, {})), placement), RESAMPLERS)


def decibels(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two pictures of one size."""
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def measured(name: str, upscaler: Upscaler, original: Image.Image) -> Row:
    """Return what ``upscaler`` makes of ``original`` made smaller; loading its file does not count."""
    small = original.resize((original.width // SCALE, original.height // SCALE), Image.Resampling.LANCZOS)
    upscaler.upscale(small.crop((0, 0, 8, 8)), 8 * SCALE, 8 * SCALE)
    started = time.perf_counter()
    made = upscaler.upscale(small, *original.size)
    return Row(name, made, decibels(original, made), time.perf_counter() - started)


def sheet(original: Image.Image, rows: Sequence[Row]) -> Image.Image:
    """Return the original and all pictures side by side, their names below them."""
    shown = [("Original", original), *((row.name, row.image) for row in rows)]
    columns = math.ceil(math.sqrt(len(shown)))
    width, height = original.width, original.height + LABEL
    made = Image.new("RGB", (columns * width, math.ceil(len(shown) / columns) * height), "white")
    for i, (name, image) in enumerate(shown):
        left, top = i % columns * width, i // columns * height
        made.paste(image, (left, top))
        ImageDraw.Draw(made).text((left + 4, top + original.height + 2), name, fill="black")
    return made


def opened(path: Path, side: int) -> Image.Image:
    """Return the middle of a picture, at most ``side`` pixels a side and a multiple of the scale."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    width, height = (min(side, length) // SCALE * SCALE for length in whole.size)
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    return whole.crop((left, top, left + width, top + height))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the table and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, nargs="?", default=ROOT / "docs" / "starter" / "sheet.png")
    parser.add_argument("--data-dir", type=Path, default=ROOT, help="where models/ is")
    parser.add_argument("--side", type=int, default=256, help="how much of the picture's middle is used")
    parser.add_argument("--sheet", type=Path, default=Path("upscalers.png"), help="the file to write")
    given = parser.parse_args(arguments)
    original, rows = opened(given.picture, given.side), []
    print(f"| upscaler | PSNR, {original.width // SCALE}x{original.height // SCALE} to "
          f"{original.width}x{original.height} | seconds |\n| --- | --- | --- |")
    for name, upscaler in installed(given.data_dir).items():
        if name == "None":
            continue
        try:
            rows.append(measured(name, upscaler, original))
            print(f"| {name} | {rows[-1].decibels:.2f} dB | {rows[-1].seconds:.2f} |", flush=True)
        except DarkroomError as error:
            print(f"| {name} | {error.message} | |", flush=True)
    sheet(original, rows).save(given.sheet)
    print(f"\nThe pictures are in {given.sheet}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
