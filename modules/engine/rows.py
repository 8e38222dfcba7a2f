"""The rows of a guided model call: what is said about which picture, in which role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modules.engine.conditioning import PicturePrompts
from modules.prompts.schedule import text_at

NEGATIVE = ("uncond", "image_uncond")


@dataclass(frozen=True)
class Row:
    """One row of a model call: which picture of the batch, as what, with which weight, from which text."""

    picture: int
    role: str
    weight: float
    text: str

    @property
    def said(self) -> tuple[str, bool]:
        """The text, and whether it is a negative prompt: the key of its encoding."""
        return self.text, self.role in NEGATIVE


def rows_at(prompts: Sequence[PicturePrompts], call: int, roles: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of model call ``call`` (from 0): for each role in turn, those of every picture.

    A negative role has one row a picture; any other has one for each part of its prompt.
    """
    return tuple(
        row for role in roles for picture, item in enumerate(prompts) for row in _rows(picture, item, role, call)
    )


def _rows(picture: int, item: PicturePrompts, role: str, call: int) -> Sequence[Row]:
    if role in NEGATIVE:
        return (Row(picture, role, 1.0, text_at(item.negative, call)),)
    return [Row(picture, role, part.weight, text_at(part.stages, call)) for part in item.parts]
