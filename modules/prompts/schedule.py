"""Prompt editing and alternation: which text a prompt stands for at which step.

``[from:to:when]``, ``[to:when]``, ``[from::when]`` and ``[a|b|c]`` nest in each other and in emphasis::

    document:  (item | "[" | "]" | "(" | ")" | ":")*
    items:     item*
    item:      TEXT | edit | alternation | emphasis
    edit:      "[" [items ":"] items ":" WHEN "]"
    alternation: "[" items ("|" items)+ "]"
    emphasis:  "(" items [":" items] ")" | "[" items "]"
    TEXT:      any characters but \\ [ ] ( ) : |, or a backslash and any character but a line feed
    WHEN:      a signed decimal number, white space allowed around it

This is the language of AUTOMATIC1111's web UI. The grammar is ambiguous only in whether a bracket is an item or a
character of the document, and an item always wins; so a stack recognises it in one pass, in time linear in the
length and at any depth, where a general parser takes time cubic in the number of unmatched brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from modules.prompts.grammar import compose

_TOKEN = re.compile(r"((?:[^\\\[\]():|]|\\.)+)|[\[\]():|]")
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


@dataclass(frozen=True)
class Stage:
    """``text`` holds up to and including step ``until``."""

    until: int
    text: str


@dataclass(frozen=True)
class Part:
    """One of the prompts that ``AND`` joins: its weight and its texts by step."""

    weight: float
    stages: tuple[Stage, ...]


@dataclass(frozen=True, eq=False)
class _Edit:
    """``before`` up to and including step ``last``, ``after`` from then on."""

    before: tuple[_Item, ...]
    after: tuple[_Item, ...]
    last: int

    def chosen(self, step: int) -> tuple[_Item, ...]:
        return self.before if step <= self.last else self.after


@dataclass(frozen=True, eq=False)
class _Alternation:
    """One option after the other, a step each."""

    options: tuple[tuple[_Item, ...], ...]

    def chosen(self, step: int) -> tuple[_Item, ...]:
        return self.options[(step - 1) % len(self.options)]


_Item: TypeAlias = str | _Edit | _Alternation


def schedule(
    prompt: str, steps: int, hires_steps: int | None = None, old_timelines: bool = False
) -> tuple[Stage, ...]:
    """Return the texts of ``prompt`` over ``steps`` (1 or more); the last stage ends with the last step.

    ``when`` with a decimal point is a fraction of the steps, without one a number of steps. With ``hires_steps`` the
    result is for the second pass: there fractions from 1 to 2 apply and steps count on from ``steps``, and what lies
    before has happened. ``old_timelines`` counts as AUTOMATIC1111's web UI before 1.6: below 1 is a fraction, from 1
    on steps, the same in both passes. A stray ``|`` or a backslash that escapes nothing makes all of it plain text.
    """
    second_pass = hires_steps is not None and not old_timelines
    count = hires_steps if hires_steps is not None and second_pass else steps

    def last_step(when: str) -> int:
        number = float(when)
        if old_timelines:
            number *= count if number < 1 else 1
        elif "." in when:
            number = (number - (1.0 if second_pass else 0.0)) * count
        else:
            number -= steps if second_pass else 0
        return int(max(-1.0, min(float(count), number)))

    items = _parse(prompt, last_step)
    ends = _ends(items, count)
    return tuple(Stage(end, _text(items, end)) for end in ends)


def text_at(stages: Sequence[Stage], step: int) -> str:
    """Return the text for the model call number ``step``, counted from 0.

    As in AUTOMATIC1111's web UI the count starts at 0 and ends are inclusive, so that ``[a:b:3]`` shows ``a`` to four
    calls, and calls after the last stage (adaptive samplers make some) see the first stage again.
    """
    return next((stage.text for stage in stages if step <= stage.until), stages[0].text)


def plan_prompts(
    prompt: str, steps: int, hires_steps: int | None = None, old_timelines: bool = False
) -> tuple[Part, ...]:
    """Split a positive ``prompt`` at ``AND`` and schedule each part; arguments as of ``schedule``.

    A negative prompt knows no ``AND``: use ``schedule`` for it.
    """
    return tuple(
        Part(composed.weight, schedule(composed.text, steps, hires_steps, old_timelines))
        for composed in compose(prompt)
    )


def _parse(prompt: str, last_step: Callable[[str], int]) -> tuple[_Item, ...]:
    tokens = _tokens(prompt)
    if tokens is None:
        return (prompt,)
    reader = _Reader(last_step)
    for token in tokens:
        reader.read(token)
    if "|" in reader.items:
        return (prompt,)
    return _joined(reader.items)


def _tokens(prompt: str) -> list[str] | None:
    """Return the tokens of ``prompt``, None if a backslash in it escapes nothing."""
    tokens: list[str] = []
    end = 0
    for match in _TOKEN.finditer(prompt):
        if match.start() != end:
            return None
        tokens.append(match.group(0))
        end = match.end()
    return tokens if end == len(prompt) else None


@dataclass(frozen=True)
class _Frame:
    """An open bracket: where it stands, and where the separators of its own level stand, all in ``_Reader.items``."""

    bracket: str
    start: int
    colons: list[int]
    bars: list[int]


class _Reader:
    """Reads tokens into ``items``, in which a finished edit or alternation replaces its tokens."""

    def __init__(self, last_step: Callable[[str], int]) -> None:
        self.items: list[_Item] = []
        self._frames: list[_Frame] = []
        self._last_step = last_step

    def read(self, token: str) -> None:
        position = len(self.items)
        self.items.append(token)
        if token in ("(", "["):
            self._frames.append(_Frame(token, position, [], []))
        elif token == ":" and self._frames:
            self._frames[-1].colons.append(position)
        elif token == "|" and self._frames:
            self._frames[-1].bars.append(position)
        elif token in (")", "]") and self._frames:
            self._close(token)

    def _close(self, token: str) -> None:
        frame = self._frames.pop()
        if frame.bracket + token == "()" and not frame.bars and len(frame.colons) < 2:
            return
        if frame.bracket + token == "[]" and self._close_square(frame):
            return
        # Brackets that are characters may stand in the document only: all that are open around them are so too.
        self._frames.clear()

    def _close_square(self, frame: _Frame) -> bool:
        if frame.bars and not frame.colons:
            self._replace(frame.start, _Alternation(tuple(self._between(frame.start, frame.bars))))
            return True
        if frame.bars or len(frame.colons) > 2:
            return False
        return not frame.colons or self._close_edit(frame)

    def _close_edit(self, frame: _Frame) -> bool:
        *sides, when = self._between(frame.start, frame.colons)
        match = _WHEN.fullmatch(when[0]) if len(when) == 1 and isinstance(when[0], str) else None
        if match is None:
            return False
        before = sides[0] if len(sides) == 2 else ()
        self._replace(frame.start, _Edit(before, sides[-1], self._last_step(match.group(1))))
        return True

    def _between(self, start: int, separators: list[int]) -> list[tuple[_Item, ...]]:
        """Return what lies between the bracket at ``start``, the separators and the closing bracket."""
        starts, ends = [start, *separators], [*separators, len(self.items) - 1]
        return [_joined(self.items[first + 1 : end]) for first, end in zip(starts, ends, strict=True)]

    def _replace(self, start: int, item: _Item) -> None:
        del self.items[start:]
        self.items.append(item)


def _joined(items: Sequence[_Item]) -> tuple[_Item, ...]:
    """Return ``items`` with neighbouring strings made one."""
    result: list[_Item] = []
    texts: list[str] = []
    for item in items:
        if isinstance(item, str):
            texts.append(item)
            continue
        if texts:
            result.append("".join(texts))
            texts = []
        result.append(item)
    return (*result, "".join(texts)) if texts else tuple(result)


def _ends(items: tuple[_Item, ...], steps: int) -> list[int]:
    """Return the steps at which a stage ends, ascending."""
    ends = {steps}
    stack = list(items)
    while stack:
        item = stack.pop()
        if isinstance(item, _Edit):
            ends.update((item.last,) if item.last >= 1 else ())
            stack += item.before + item.after
        elif isinstance(item, _Alternation):
            ends.update(range(1, steps + 1))
            stack += [inner for option in item.options for inner in option]
    return sorted(ends)


def _text(items: tuple[_Item, ...], step: int) -> str:
    texts: list[str] = []
    stack = list(reversed(items))
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            texts.append(item)
        else:
            stack.extend(reversed(item.chosen(step)))
    return "".join(texts)
