"""Scenes and their captions: what is varied is named, so that attributes bind to words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from modules.training.compose import GROUNDS, NATURAL, OBJECTS
from modules.training.config import CaptionConfig
from modules.training.dataset import Entry, fraction

PLACES: dict[str, tuple[float, float]] = {
    "on the left": (-0.45, 0.0),
    "on the right": (0.45, 0.0),
    "at the top": (0.0, -0.45),
    "at the bottom": (0.0, 0.45),
}
PLAIN = "white"
SMALL = 0.5
_QUOTES = str.maketrans("‘’“”", "''\"\"")


@dataclass(frozen=True)
class Scene:
    """One composition: the picture ``index`` in a ``colour`` on a ``ground``, at full size or small at a place."""

    index: int
    colour: str = NATURAL
    ground: str = PLAIN
    small: bool = False
    place: str = ""

    @property
    def scale(self) -> float:
        return SMALL if self.small else 1.0

    @property
    def centre(self) -> tuple[float, float]:
        return PLACES.get(self.place, (0.0, 0.0))


def held_out(base: str, colour: str, ground: str, share: float) -> bool:
    """Return whether a label, colour and ground together are kept from training; only named ones can be."""
    return colour != NATURAL and ground != PLAIN and fraction("combination", base, colour, ground) < share


def draw_scene(index: int, entry: Entry, config: CaptionConfig, source: random.Random) -> Scene:
    """Return a random scene of ``entry`` that is not held out."""
    while True:
        colour = source.choice(list(OBJECTS)) if source.random() < config.tinted else NATURAL
        ground = source.choice(list(GROUNDS)) if source.random() < config.ground else PLAIN
        if not held_out(entry.base, colour, ground, config.held_out):
            break
    small = source.random() < config.placed
    place = source.choice(["", *PLACES]) if small else ""
    return Scene(index, colour, ground, small, place)


def draw_scenes(entries: Sequence[Entry], config: CaptionConfig, draws: int, seed: int) -> list[Scene]:
    """Return ``draws`` scenes of every entry; the first is the picture as it is, on white."""
    scenes = []
    for index, entry in enumerate(entries):
        source = random.Random(f"{seed}/{entry.hexcode}")
        scenes.append(Scene(index))
        scenes.extend(draw_scene(index, entry, config, source) for _ in range(draws - 1))
    return scenes


def subject(entry: Entry) -> str:
    """Return the label in plain words: "waving hand with dark skin tone", "woman with curly hair"."""
    base, _, detail = entry.label.lower().translate(_QUOTES).partition(": ")
    if base in ("flag", "keycap", "family"):
        return f"{base} {detail}".strip()
    return f"{base} with {detail.replace(', ', ' and ')}" if detail else base


def article(words: str) -> str:
    """Return ``words`` with "a" or "an"."""
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


def compose_caption(scene: Scene, entry: Entry, source: random.Random, tags: float = 0.0) -> str:
    """Return one wording of a scene: every deviation from the plain picture is named, white sometimes.

    With probability ``tags`` a keyword follows the label.
    """
    colour = "" if scene.colour == NATURAL else f"{scene.colour} "
    words = f"{'small ' if scene.small else ''}{colour}{subject(entry)}"
    caption = article(words) if source.random() < 0.5 else words
    if entry.tags and source.random() < tags:
        caption = f"{caption}, {source.choice(entry.tags)},"
    if scene.place:
        caption = f"{caption} {scene.place}"
    if scene.ground != PLAIN or source.random() < 0.3:
        caption = f"{caption} on {article(scene.ground)} background"
    return caption


def wordings(scene: Scene, entry: Entry, config: CaptionConfig, count: int, seed: int) -> list[str]:
    """Return ``count`` wordings of a scene, the same for the same arguments."""
    source = random.Random(f"{seed}/{entry.hexcode}/{scene}")
    return [compose_caption(scene, entry, source, config.tags) for _ in range(count)]
