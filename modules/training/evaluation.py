"""What a trained model is judged by: numbers read from its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from modules.training import captions, losses
from modules.training.autoencoder import fixed_pictures, reconstruct
from modules.training.compose import GROUNDS, OBJECTS
from modules.training.dataset import Dataset, Entry
from modules.training.styles import Duotone

BORDER = 6
FEATURE_SIDE = 32
OBJECT_DISTANCE = 25.0
D65 = (0.95047, 1.0, 1.08883)
SRGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


def lab(rgb: torch.Tensor) -> torch.Tensor:
    """Return CIE L*a*b* (D65) [..., 3] of sRGB [..., 3] in 0..1 (IEC 61966-2-1, CIE 15)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ rgb.new_tensor(SRGB_TO_XYZ).T / rgb.new_tensor(D65)
    roots = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(0) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = roots.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def palette(table: dict[str, tuple[int, int, int]]) -> torch.Tensor:
    """Return the named colours in L*a*b*, in the table's order."""
    return lab(torch.tensor(list(table.values())) / 255)


def corners(pixels: torch.Tensor) -> torch.Tensor:
    """Return the mean colour [n, 3] in 0..1 of the four corners of [n, 3, h, w] in -1..1."""
    ends = (slice(0, BORDER), slice(-BORDER, None))
    parts = [pixels[:, :, rows, columns].flatten(2) for rows in ends for columns in ends]
    return (torch.cat(parts, 2).median(2).values.clamp(-1, 1) + 1) / 2


def grounds(pixels: torch.Tensor) -> list[str]:
    """Return the named ground that is nearest in L*a*b* to the corners of each picture."""
    nearest = torch.cdist(lab(corners(pixels)), palette(GROUNDS)).argmin(1)
    return [list(GROUNDS)[index] for index in nearest]


def colours(pixels: torch.Tensor) -> list[str]:
    """Return the named colour whose hue angle is nearest to that of each picture's object.

    The object is what differs from the corners by more than 25 in L*a*b*; its hue is that of its summed chroma.
    A picture without an object is "none".
    """
    hues = torch.atan2(*palette(OBJECTS)[:, 1:].flip(1).T)
    found = []
    for picture, ground in zip(pixels, lab(corners(pixels)), strict=True):
        points = lab((picture.permute(1, 2, 0).reshape(-1, 3).clamp(-1, 1) + 1) / 2)
        points = points[(points - ground).norm(dim=1) > OBJECT_DISTANCE]
        chroma = points[:, 1:].sum(0)
        angles = torch.atan2(chroma[1], chroma[0]) - hues
        nearest = int(torch.atan2(angles.sin(), angles.cos()).abs().argmin())
        found.append(list(OBJECTS)[nearest] if len(points) else "none")
    return found


def features(pixels: torch.Tensor) -> torch.Tensor:
    """Return the space in which pictures are compared: 32x32 area means of RGB, flattened."""
    return F.interpolate(pixels.float(), (FEATURE_SIDE, FEATURE_SIDE), mode="area").flatten(1)


def nearest_labels(pixels: torch.Tensor, data: Dataset) -> list[str]:
    """Return the label of the picture of ``data`` (own colours, on white) nearest to each of ``pixels``."""
    references = features(fixed_pictures(data.rgba))
    nearest = torch.cdist(features(pixels), references).argmin(1)
    return [data.entries[index].label for index in nearest]


def off_palette(pixels: torch.Tensor, style: Duotone) -> torch.Tensor:
    """Return how far [n, 3, h, w] in -1..1 are from a style's colours: the mean distance in RGB, 0..255, [n].

    Each pixel's is that to the nearest mixture of the style's two colours.
    """
    points = (pixels.float().clamp(-1, 1) + 1).mul(127.5).flatten(2)
    start, end = (points.new_tensor(colour)[:, None] for colour in (style.lights, style.shadows))
    along = ((points - start) * (end - start)).sum(1, keepdim=True) / (end - start).square().sum()
    nearest = start + along.clamp(0, 1) * (end - start)
    return (points - nearest).norm(dim=1).mean(1)


@dataclass(frozen=True)
class Question:
    """A prompt and what its picture must show; an empty answer is not judged."""

    prompt: str
    label: str = ""
    ground: str = ""
    colour: str = ""


def label_questions(entries: Sequence[Entry], count: int) -> list[Question]:
    """Return ``count`` prompts, "a cat", for labels spread evenly over ``entries``."""
    chosen = torch.linspace(0, len(entries) - 1, min(count, len(entries))).long().tolist()
    return [
        Question(captions.article(captions.subject(entries[index])), entries[index].label, captions.PLAIN)
        for index in chosen
    ]


def combination_questions(entries: Sequence[Entry], count: int, share: float) -> list[Question]:
    """Return prompts for ``count`` combinations that training never saw, each with a colour unlike its ground."""
    questions = []
    for entry in entries:
        for colour in OBJECTS:
            for ground in GROUNDS:
                if colour != ground and captions.held_out(entry.base, colour, ground, share):
                    words = captions.article(f"{colour} {captions.subject(entry)}")
                    prompt = f"{words} on {captions.article(ground)} background"
                    questions.append(Question(prompt, entry.label, ground, colour))
    if not questions:
        return []
    chosen = torch.linspace(0, len(questions) - 1, min(count, len(questions))).long().tolist()
    return [questions[index] for index in chosen]


def share(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the fraction of answers that are as wanted."""
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / max(1, len(wanted))


def reconstruction(model: AutoencoderKL, data: Dataset) -> dict[str, float]:
    """Return the mean PSNR in dB of pictures on white and on blue."""
    result = {}
    for ground in ("white", "blue"):
        pixels = fixed_pictures(data.rgba, ground)
        result[ground] = float(losses.psnr(reconstruct(model, pixels), pixels).mean())
    return result
