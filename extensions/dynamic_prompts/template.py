"""Texts from templates: one drawn by a seed, or all of them in order. ``syntax`` says what a template is."""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .syntax import MAX_DEPTH, Choice, Items, Options, Wildcard, parse, split_weight
from .wildcards import Wildcards

__all__ = ["Wildcards", "combinations", "expand"]

MAX_LENGTH = 200_000
MAX_TOTAL_LENGTH = 20_000_000
MAX_CHOICES = 100_000

Lookup: TypeAlias = Callable[[str], tuple[str, ...]]


def expand(template: str, seed: int, wildcards: Lookup) -> str:
    """Return a text of ``template``: always the same for the same ``seed`` (0 or more), template and wildcards.

    ``wildcards`` maps a name to the lines to choose from, none if there is no such wildcard: then its text stays as it
    is, as does that of a wildcard within itself and of what is nested more than ``MAX_DEPTH`` deep. The result ends
    after ``MAX_LENGTH`` characters (the template's own length if that is more); choices after the first
    ``MAX_CHOICES`` are left out.
    """
    # Of Python's generator only random() is promised to give the same numbers in every version.
    sampler = _Sampler(_Book(wildcards), random.Random(seed).random, max(MAX_LENGTH, len(template)))
    sampler.add(parse(template, 0), _Place())
    return sampler.text()


def combinations(template: str, wildcards: Lookup, limit: int) -> tuple[str, ...]:
    """Return the first ``limit`` texts of ``template``, the rightmost choice changing fastest; weights play no part.

    Several options of one choice come in every order. Bounds and wildcards as of ``expand``; where ``limit`` texts
    would have more than about ``MAX_TOTAL_LENGTH`` characters there are fewer.
    """
    limit = min(limit, MAX_TOTAL_LENGTH // max(1, len(template)) + 1)
    if limit < 1:
        return ()
    enumerator = _Enumerator(_Book(wildcards), max(MAX_LENGTH, len(template)))
    return tuple(enumerator.texts(parse(template, 0), limit, _Place()))


@dataclass(frozen=True)
class _Place:
    """Where in the expansion something stands: how deep, and within which wildcards."""

    depth: int = 0
    names: tuple[str, ...] = ()

    def inside(self, *names: str) -> _Place:
        return _Place(self.depth + 1, self.names + names)


class _Book:
    """The wildcards that an expansion has met, and how many choices it may still make."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._options: dict[str, Options] = {}
        self._choices_left = MAX_CHOICES

    def spend(self, choices: int = 1) -> bool:
        """Count ``choices``; False once there have been too many."""
        self._choices_left -= choices
        return self._choices_left >= 0

    def wildcard(self, name: str, place: _Place) -> Options | None:
        """Return the lines of a wildcard; None if at ``place`` it is text."""
        if name in place.names or place.depth >= MAX_DEPTH:
            return None
        if name not in self._options:
            lines = [split_weight([line]) for line in self._lookup(name)]
            contents = tuple(str(items[0]) for items, _ in lines)
            self._options[name] = Options(contents, tuple(weight for _, weight in lines))
        return self._options[name] if self._options[name].contents else None

    def resolve(self, item: Choice | Wildcard, place: _Place) -> tuple[Choice, _Place] | None:
        """Return ``item`` as a choice, and the place of its options; None if ``item`` is a wildcard that is text."""
        if isinstance(item, Wildcard):
            options = self.wildcard(item.name, place)
            return (Choice(options), place.inside(item.name)) if options else None
        only = item.options.contents[0] if len(item.options.contents) == 1 else ()
        if len(only) == 1 and isinstance(only[0], Wildcard):
            options = self.wildcard(only[0].name, place)
            if options:
                return Choice(options, item.low, item.high, item.separator), place.inside(only[0].name)
        return item, place.inside()


def _content(options: Options, index: int, place: _Place) -> Items:
    content = options.contents[index]
    return parse(content, place.depth) if isinstance(content, str) else content


class _Sampler:
    """Writes one text, drawing at every choice."""

    def __init__(self, book: _Book, draw: Callable[[], float], length: int) -> None:
        self._book = book
        self._draw = draw
        self._length = length
        self._length_left = length
        self._texts: list[str] = []

    def text(self) -> str:
        return "".join(self._texts)[: self._length]

    def add(self, items: Items, place: _Place) -> None:
        for item in items:
            if self._length_left <= 0:
                return
            if isinstance(item, str):
                self._add_text(item)
            elif self._book.spend():
                self._add_choice(item, place)

    def _add_text(self, text: str) -> None:
        self._texts.append(text)
        self._length_left -= len(text)

    def _add_choice(self, item: Choice | Wildcard, place: _Place) -> None:
        resolved = self._book.resolve(item, place)
        if resolved is None:
            self._add_text(item.source if isinstance(item, Wildcard) else "")
            return
        choice, inside = resolved
        for number, index in enumerate(self._picked(choice)):
            if number > 0:
                self._add_text(choice.separator)
            self.add(_content(choice.options, index, inside), inside)

    def _picked(self, choice: Choice) -> list[int]:
        """Draw indices of options, weighted and without replacement."""
        options = choice.options
        low, high = choice.bounds(len(options.contents))
        count = low if low == high else low + int(self._draw() * (high - low + 1))
        picked: dict[int, None] = {}
        while len(picked) < count:
            index = self._index(options)
            if index in picked:
                options = options.without(picked)
                if not any(options.weights) or not self._book.spend(1 + len(options.weights) // 64):
                    break
                index = self._index(options)
            picked[index] = None
        return list(picked)

    def _index(self, options: Options) -> int:
        cumulative = options.cumulative
        return min(bisect(cumulative, self._draw() * cumulative[-1]), len(cumulative) - 1)


class _Enumerator:
    """Lists texts in order, each cut at ``length``."""

    def __init__(self, book: _Book, length: int) -> None:
        self._book = book
        self._length = length

    def texts(self, items: Items, limit: int, place: _Place) -> list[str]:
        """Return the first ``limit`` texts (1 or more) of ``items`` in sequence.

        Seen from the right, choices multiply the texts only until there are ``limit``; what is further left shows its
        first text in all of them. So the time is that of writing the result, times the logarithm of ``limit``.
        """
        ends = [""]
        fixed: list[str] = []
        for item in reversed(items):
            texts = [item] if isinstance(item, str) else self._choice(item, limit if len(ends) < limit else 1, place)
            if len(texts) == 1:
                fixed.append(texts[0])
                continue
            ends = self._prefixed(fixed, ends)
            fixed = []
            pairs = itertools.islice(itertools.product(texts, ends), limit)
            ends = [(text + end)[: self._length] for text, end in pairs]
        return self._prefixed(fixed, ends)

    def _prefixed(self, fixed: list[str], ends: list[str]) -> list[str]:
        prefix = "".join(reversed(fixed))
        return [(prefix + end)[: self._length] for end in ends]

    def _choice(self, item: Choice | Wildcard, limit: int, place: _Place) -> list[str]:
        """Return the first ``limit`` texts of one choice, at least one."""
        resolved = self._book.resolve(item, place) if self._book.spend() else None
        if resolved is None:
            return [item.source if isinstance(item, Wildcard) else ""]
        choice, inside = resolved
        texts: list[str] = []
        for items in self._selections(choice, inside):
            texts += self.texts(items, limit - len(texts), inside)
            if len(texts) >= limit:
                break
        return texts

    def _selections(self, choice: Choice, inside: _Place) -> Iterator[Items]:
        indices = range(len(choice.options.contents))
        low, high = choice.bounds(len(indices))
        for count in range(low, high + 1):
            for selection in itertools.permutations(indices, count):
                contents = [_content(choice.options, index, inside) for index in selection]
                separated = ((choice.separator, *content) if number else content
                             for number, content in enumerate(contents))
                yield tuple(itertools.chain.from_iterable(separated))
