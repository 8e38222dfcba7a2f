"""Prompts of a batch, encoded once and looked up at every model call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from modules.core.plan import Picture
from modules.families.base import Conditioning
from modules.prompts import grammar, tags
from modules.prompts.schedule import Part, Stage, plan_prompts, schedule, text_at


@dataclass(frozen=True)
class PicturePrompts:
    """One picture's prompts over the calls of a pass: weighted parts joined by AND, and the negative prompt."""

    parts: tuple[Part, ...]
    negative: tuple[Stage, ...]

    def texts(self) -> Iterable[str]:
        """Yield every text that occurs."""
        for stages in (*(part.stages for part in self.parts), self.negative):
            for stage in stages:
                yield stage.text


def picture_prompts(picture: Picture, calls: int, old_timelines: bool) -> PicturePrompts:
    """Return what is said at each of ``calls`` model calls; network tags and comments are taken out."""
    positive = tags.extract(grammar.strip_comments(picture.prompt))[0]
    negative = grammar.strip_comments(picture.negative_prompt)
    return PicturePrompts(
        plan_prompts(positive, calls, old_timelines=old_timelines),
        schedule(negative, calls, old_timelines=old_timelines),
    )


class ConditioningCache:
    """Encoded prompts by key, the least recently used forgotten beyond ``limit`` entries."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._entries: OrderedDict[Hashable, Conditioning] = OrderedDict()

    def encode(
        self, texts: Iterable[str], key: Hashable, encode: Callable[[Sequence[str]], list[Conditioning]]
    ) -> dict[str, Conditioning]:
        """Return a ``Conditioning`` for each text; those not known under ``key`` are encoded in one call."""
        wanted = list(dict.fromkeys(texts))
        found = {text: self._entries[key, text] for text in wanted if (key, text) in self._entries}
        missing = [text for text in wanted if text not in found]
        found |= dict(zip(missing, encode(missing), strict=True)) if missing else {}
        for text in wanted:
            self._entries[key, text] = found[text]
            self._entries.move_to_end((key, text))
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


@dataclass(frozen=True)
class Row:
    """One row of a model call: which picture of the batch, as what, with which weight, from which text."""

    picture: int
    role: str
    weight: float
    text: str


def rows_at(prompts: Sequence[PicturePrompts], call: int, with_negative: bool) -> tuple[Row, ...]:
    """Return the rows of model call ``call`` (from 0): each picture's parts, then the negative prompts."""
    positive = tuple(
        Row(picture, "cond", part.weight, text_at(part.stages, call))
        for picture, item in enumerate(prompts) for part in item.parts
    )
    if not with_negative:
        return positive
    return positive + tuple(
        Row(picture, "uncond", 1.0, text_at(item.negative, call)) for picture, item in enumerate(prompts)
    )
