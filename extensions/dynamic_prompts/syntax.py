r"""Templates of prompts: ``{a|b}``, ``{2$$a|b|c}``, ``__wildcard__``, nested at will.

===========================  =========================================================================
``{a|b|}``                   one of the options, which may be empty
``{3::a|b}``                 ``a`` three times as often; an option without a number weighs 1
``{2$$a|b|c}``               two different options in random order, joined by ``", "``
``{1-3$$ and $$a|b|c}``      one to three of them, joined by ``" and "``
``{-2$$a|b|c} {2-$$a|b|c}``  at least one; as many as there are
``__name__``                 a line of ``name.txt``; ``__folder/name__``, ``__folder/*__``, ``__**/name__``
``{2$$__name__}``            two different lines of it
``\{ \} \_``                 the characters themselves; within braces ``\|`` and ``\$`` too
===========================  =========================================================================

The syntax is that of the Dynamic Prompts extension. What is no template is copied as it is: braces without any of
this in them, and the prompt language's own ``[a|b]`` (its bars stay its own within braces), ``(x:1.2)``, ``<lora:x>``.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_DEPTH = 40
SEPARATOR = ", "

_TOKEN = re.compile(r"\\.|__([\w.*/-]+?)__|[{}|\[\]]|[^\\{}|\[\]_]+|.", re.DOTALL)
_WEIGHT = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})::")
_QUANTITY = re.compile(r"\s*(?:([0-9]{1,6})?(-)([0-9]{1,6})?|([0-9]{1,6}))\$\$(?:([^${}]*)\$\$)?")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Wildcard:
    name: str

    @property
    def source(self) -> str:
        return f"__{self.name}__"


@dataclass(frozen=True, eq=False)
class Choice:
    """Braces: ``low`` to ``high`` (None: all) of the options, joined by ``separator``."""

    options: Options
    low: int = 1
    high: int | None = 1
    separator: str = ""

    def bounds(self, count: int) -> tuple[int, int]:
        """Return the least and the most of ``count`` options to take."""
        high = count if self.high is None else min(self.high, count)
        return min(self.low, high), high


Item: TypeAlias = str | Choice | Wildcard
Items: TypeAlias = tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class Options:
    """Options to choose from, either parsed or (lines of a wildcard) text to be parsed when it is chosen."""

    contents: tuple[Items | str, ...]
    weights: tuple[float, ...]

    @functools.cached_property
    def cumulative(self) -> tuple[float, ...]:
        """The sums of the weights; of equal weights where all are 0."""
        return tuple(itertools.accumulate(self.weights if any(self.weights) else [1.0] * len(self.weights)))

    def without(self, indices: Iterable[int]) -> Options:
        """Return these options with those at ``indices`` given the weight 0."""
        dropped = set(indices)
        equal = not any(self.weights)
        kept = ((1.0 if equal else weight, index) for index, weight in enumerate(self.weights))
        return Options(self.contents, tuple(0.0 if index in dropped else weight for weight, index in kept))


@dataclass
class _Frame:
    """An open ``{`` or ``[``: where it stands and where the bars of its own level stand."""

    bracket: str
    start: int
    bars: list[int] = field(default_factory=list)


def parse(template: str, depth: int) -> Items:
    """Return the parts of ``template``; braces that with ``depth`` are over ``MAX_DEPTH`` deep are text."""
    reader = _Reader(depth)
    for match in _TOKEN.finditer(template):
        reader.read(match.group(0), match.group(1))
    return _joined(reader.items, "{}_")


class _Reader:
    """Reads tokens into ``items``, in which a choice replaces its tokens as soon as its brace closes."""

    def __init__(self, depth: int) -> None:
        self.items: list[Item] = []
        self._frames: list[_Frame] = []
        self._depth = depth  # of the innermost open brace
        self._outside = depth

    def read(self, token: str, wildcard: str | None) -> None:
        position = len(self.items)
        self.items.append(token if wildcard is None else Wildcard(wildcard))
        if token in ("{", "["):
            self._frames.append(_Frame(token, position))
            self._depth += token == "{"
        elif token == "|" and self._frames:
            self._frames[-1].bars.append(position)
        elif token == "]" and self._frames and self._frames[-1].bracket == "[":
            self._frames.pop()
        elif token == "}" and self._depth > self._outside:
            self._close()

    def _close(self) -> None:
        frame = self._pop_brace()
        self._depth -= 1
        if self._depth >= MAX_DEPTH:
            return
        body = self.items[frame.start + 1 : -1]
        choice = _choice(body, [bar - frame.start - 1 for bar in frame.bars])
        if choice is not None:
            del self.items[frame.start :]
            self.items.append(choice)

    def _pop_brace(self) -> _Frame:
        """Remove the innermost brace; square brackets left open in it are text, so that their bars are the brace's."""
        bars: list[list[int]] = []
        while self._frames[-1].bracket == "[":
            bars.append(self._frames.pop().bars)
        frame = self._frames.pop()
        frame.bars.extend(itertools.chain.from_iterable(reversed(bars)))
        return frame


def _choice(body: list[Item], bars: list[int]) -> Choice | None:
    """Return the choice that ``body`` with its bars means between braces; None if it is no template."""
    head = "".join(itertools.takewhile(lambda item: isinstance(item, str), body))  # type: ignore[arg-type]
    quantity = _QUANTITY.match(head)
    if quantity is None:
        is_wildcard = len(body) == 1 and isinstance(body[0], Wildcard)
        is_template = bars or is_wildcard or _WEIGHT.match(head)
        return Choice(_options(body, bars)) if is_template else None
    rest, dropped = _without_prefix(body, quantity.end())
    options = _options(rest, [bar - dropped for bar in bars if bar >= dropped])
    stripped = tuple(_stripped(content) for content in options.contents if not isinstance(content, str))
    lower, _, upper, exact, separator = quantity.groups()
    low = int(exact or lower or 1)
    high = int(exact or upper or 0) if exact or upper else None
    low = low if high is None else min(low, high)
    separator = SEPARATOR if separator is None else _unescaped(separator, "{}_|$")
    return Choice(Options(stripped, options.weights), low, high, separator)


def _without_prefix(body: list[Item], length: int) -> tuple[list[Item], int]:
    """Return ``body`` without its first ``length`` characters, and how many items fewer it has."""
    for index, item in enumerate(body):
        text = item if isinstance(item, str) else ""
        if length < len(text):
            return [text[length:], *body[index + 1 :]], index
        length -= len(text)
        if length == 0:
            return body[index + 1 :], index + 1
    return [], len(body)


def _options(body: list[Item], bars: list[int]) -> Options:
    starts, ends = [0, *(bar + 1 for bar in bars)], [*bars, len(body)]
    weighted = [split_weight(body[start:end]) for start, end in zip(starts, ends, strict=True)]
    return Options(tuple(_joined(items, "{}_|$") for items, _ in weighted), tuple(weight for _, weight in weighted))


def split_weight(items: list[Item]) -> tuple[list[Item], float]:
    """Split the weight off the beginning of an option; 1 where there is none."""
    head = items[0] if items and isinstance(items[0], str) else ""
    match = _WEIGHT.match(head)
    return ([head[match.end() :], *items[1:]], float(match.group(1))) if match else (items, 1.0)


def _stripped(items: Items) -> Items:
    """Return ``items`` without white space at their ends."""
    if items and isinstance(items[0], str):
        items = (items[0].lstrip(), *items[1:])
    if items and isinstance(items[-1], str):
        items = (*items[:-1], items[-1].rstrip())
    return tuple(item for item in items if item != "")


def _joined(items: Sequence[Item], escapable: str) -> Items:
    """Return ``items`` with neighbouring texts made one and their escapes of ``escapable`` characters resolved."""
    result: list[Item] = []
    texts: list[str] = []
    for item in (*items, None):
        if isinstance(item, str):
            texts.append(item)
            continue
        if text := _unescaped("".join(texts), escapable):
            result.append(text)
        texts = []
        if item is not None:
            result.append(item)
    return tuple(result)


def _unescaped(text: str, escapable: str) -> str:
    return _ESCAPE.sub(lambda match: match[1] if match[1] in escapable else match[0], text)
