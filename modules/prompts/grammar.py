r"""Emphasis, ``BREAK``, comments and ``AND``: the parts of the prompt language that do not depend on the step.

The language is AUTOMATIC1111's: ``(more)``, ``(more:1.3)``, ``[less]``, ``\(`` ``\)`` ``\[`` ``\]`` ``\\``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

ROUND_MULTIPLIER = 1.1
SQUARE_MULTIPLIER = 1 / 1.1
MAX_DEPTH = 64
MAX_WEIGHT = 3.4e38  # the range of fp32, in which weights meet the text encoder's output

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_TOKEN = re.compile(rf"\\[()\[\]\\]?|[(\[]|:\s*([+-]?{_NUMBER})\s*\)|[)\]]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\bBREAK\b")
_AND = re.compile(r"\bAND\b")
_COMPOSED_WEIGHT = re.compile(rf"\s*([-+]?{_NUMBER})\s*")
_COMMENT_LINE = re.compile(r"(?:^|\n)#[^\n]*(?:\n|$)")
_COMMENT = re.compile(r"#[^\n]*(?:\n|$)")


@dataclass(frozen=True)
class Weighted:
    """A piece of text and the weight of its tokens; 1 leaves them as they are."""

    text: str
    weight: float


BREAK = Weighted("BREAK", -1.0)
"""The entry that stands for the word ``BREAK``; compare with ``==``."""


@dataclass(frozen=True)
class Composed:
    """One of the prompts that ``AND`` joins, and its weight in their sum."""

    text: str
    weight: float


def parse_attention(text: str) -> tuple[Weighted, ...]:
    r"""Return the pieces of ``text`` with their weights, neighbours of equal weight merged; at least one piece.

    ``(x)`` multiplies by 1.1, ``[x]`` divides by 1.1, ``(x:n)`` multiplies by n; brackets nest, those left open reach
    to the end, closing ones without a partner are text. The words ``BREAK`` become the entry ``BREAK``; inside
    brackets that change its weight it is, as in AUTOMATIC1111's web UI, the plain word with the weight negated.
    A weight that is no number is text. Brackets more than ``MAX_DEPTH`` deep are text and weights stay within
    ``MAX_WEIGHT``, which keeps the time linear in the length and every weight finite.
    """
    pieces = _Pieces()
    for match in _TOKEN.finditer(text):
        token, weight = match.group(0), match.group(1)
        if token[0] == "\\":
            pieces.add(token[1:])
        elif not _take_bracket(pieces, token, weight):
            _add_with_breaks(pieces, token)
    return pieces.finish()


def _take_bracket(pieces: _Pieces, token: str, weight: str | None) -> bool:
    """Open or close the bracket that ``token`` is; False if it is text."""
    if token in ("(", "["):
        return pieces.open(token)
    if weight is not None:
        return pieces.close("(", float(weight))
    if token == ")":
        return pieces.close("(", ROUND_MULTIPLIER)
    return token == "]" and pieces.close("[", SQUARE_MULTIPLIER)


class _Pieces:
    """The pieces so far, with the positions at which the open brackets began."""

    def __init__(self) -> None:
        self._texts: list[list[str]] = []
        self._weights: list[float] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}
        self._sealed = True  # whether the next text must begin a piece of its own

    def add(self, text: str) -> None:
        """Append text of weight 1, joined to the piece before where no bracket lies between."""
        if self._sealed:
            self._texts.append([])
            self._weights.append(1.0)
            self._sealed = False
        self._texts[-1].append(text)

    def add_break(self) -> None:
        self._texts.append([BREAK.text])
        self._weights.append(BREAK.weight)
        self._sealed = True

    def open(self, bracket: str) -> bool:
        """Begin a bracket; False if there are too many of its kind already."""
        positions = self._open[bracket]
        if len(positions) >= MAX_DEPTH:
            return False
        positions.append(len(self._weights))
        self._sealed = True
        return True

    def close(self, bracket: str, multiplier: float) -> bool:
        """Multiply everything since the last ``bracket``; False if none is open."""
        positions = self._open[bracket]
        if not positions:
            return False
        self._multiply(positions.pop(), multiplier)
        self._sealed = True
        return True

    def finish(self) -> tuple[Weighted, ...]:
        for bracket, multiplier in (("(", ROUND_MULTIPLIER), ("[", SQUARE_MULTIPLIER)):
            for position in self._open[bracket]:
                self._multiply(position, multiplier)
        return _merged(zip(map("".join, self._texts), map(_bounded, self._weights), strict=True))

    def _multiply(self, start: int, multiplier: float) -> None:
        self._weights[start:] = [weight * multiplier for weight in self._weights[start:]]


def _bounded(weight: float) -> float:
    """Return ``weight`` within ``MAX_WEIGHT``; NaN, which only a factor 0 of something infinite makes, as 0."""
    return 0.0 if math.isnan(weight) else max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))


def _add_with_breaks(pieces: _Pieces, token: str) -> None:
    parts = _BREAK.split(token)
    last = len(parts) - 1
    for index, part in enumerate(parts):
        if index > 0:
            pieces.add_break()
            part = part.lstrip()
        pieces.add(part.rstrip() if index < last else part)


def _merged(pieces: Iterable[tuple[str, float]]) -> tuple[Weighted, ...]:
    texts: list[list[str]] = []
    weights: list[float] = []
    for text, weight in pieces:
        if weights and weights[-1] == weight:
            texts[-1].append(text)
        else:
            texts.append([text])
            weights.append(weight)
    entries = tuple(Weighted("".join(parts), weight) for parts, weight in zip(texts, weights, strict=True))
    return entries or (Weighted("", 1.0),)


def strip_comments(text: str) -> str:
    """Remove everything from each ``#`` to the end of its line; a line that is only a comment goes altogether."""
    return _COMMENT.sub("\n", _COMMENT_LINE.sub("\n", text))


def compose(text: str) -> tuple[Composed, ...]:
    """Split ``text`` at the word ``AND``; ``:n`` at the end of a part is its weight (any sign), 1 without.

    White space before the weight and at the end of a part is dropped. The parts' predictions are added as
    Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models", equation 10.
    """
    return tuple(_composed(part) for part in _AND.split(text))


def _composed(part: str) -> Composed:
    text, colon, number = part.rpartition(":")
    match = _COMPOSED_WEIGHT.fullmatch(number) if colon else None
    if match is None:
        return Composed(part.rstrip(), 1.0)
    return Composed(text.rstrip(), _bounded(float(match.group(1))))
