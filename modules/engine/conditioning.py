"""Prompts of a batch, encoded once and looked up at every model call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from modules.core.plan import Picture
from modules.families.base import Conditioning
from modules.prompts import grammar, tags
from modules.prompts.schedule import Part, Stage, plan_prompts, schedule


@dataclass(frozen=True)
class PicturePrompts:
    """One picture's prompts over the calls of a pass: weighted parts joined by AND, and the negative prompt."""

    parts: tuple[Part, ...]
    negative: tuple[Stage, ...]

    def said(self) -> Iterable[tuple[str, bool]]:
        """Yield every text that occurs, and whether it is said as a negative prompt."""
        for part in self.parts:
            yield from ((stage.text, False) for stage in part.stages)
        yield from ((stage.text, True) for stage in self.negative)

    def texts(self) -> Iterable[str]:
        """Yield every text that occurs."""
        return (text for text, _ in self.said())


def picture_prompts(
    picture: Picture, calls: int, old_timelines: bool, calls_before: int | None = None
) -> PicturePrompts:
    """Return what is said at each of ``calls`` model calls; network tags and comments are taken out.

    ``calls_before`` are those of the first pass where this is the second: prompt editing goes on where it ended.
    """
    positive = tags.extract(grammar.strip_comments(picture.prompt))[0]
    negative = grammar.strip_comments(picture.negative_prompt)
    first, second = (calls, None) if calls_before is None else (calls_before, calls)
    return PicturePrompts(
        plan_prompts(positive, first, second, old_timelines), schedule(negative, first, second, old_timelines),
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
