"""Weighted text to chunks of 77 tokens, as a CLIP text encoder takes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modules.prompts.grammar import BREAK, Weighted

CHUNK_SIZE = 75


@dataclass(frozen=True)
class Chunk:
    """One sequence for the text encoder: its token ids, start and end included, and the weight of each."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


def chunk(
    weighted: Sequence[Weighted],
    tokenize: Callable[[str], Sequence[int]],
    *,
    comma_id: int | None,
    start_id: int,
    end_id: int,
    pad_id: int,
    backtrack: int = 20,
    size: int = CHUNK_SIZE,
) -> tuple[Chunk, ...]:
    """Cut ``weighted`` into chunks of exactly ``size`` + 2 tokens; at least one.

    ``tokenize`` gives the ids of a text without special tokens. Each chunk is ``start_id``, up to ``size`` tokens,
    ``end_id``, then ``pad_id`` (CLIP of SD 1 pads with ``end_id``, OpenCLIP of SD 2 with 0); these three weigh 1.
    Where a chunk is full and one of its last ``backtrack`` tokens is ``comma_id``, what follows that comma moves to
    the next chunk. ``BREAK`` ends a chunk. This is how AUTOMATIC1111's web UI cuts.
    """
    *done, last = _cut(weighted, tokenize, comma_id, backtrack, size)
    cut = [*done, last] if last or not done else done
    return tuple(_framed(pairs, start_id, end_id, pad_id, size) for pairs in cut)


def count(
    weighted: Sequence[Weighted],
    tokenize: Callable[[str], Sequence[int]],
    *,
    comma_id: int | None,
    backtrack: int = 20,
    size: int = CHUNK_SIZE,
) -> tuple[int, int]:
    """Return the tokens of a prompt and the tokens its chunks have room for, as a counter shows them: ``(12, 75)``.

    Chunks before the last count in full. Arguments as of ``chunk``.
    """
    *done, last = _cut(weighted, tokenize, comma_id, backtrack, size)
    tokens = len(done) * size + len(last)
    return tokens, math.ceil(max(tokens, 1) / size) * size


_Pair = tuple[int, float]


def _cut(
    weighted: Sequence[Weighted],
    tokenize: Callable[[str], Sequence[int]],
    comma_id: int | None,
    backtrack: int,
    size: int,
) -> list[list[_Pair]]:
    """Return the tokens of each chunk with their weights; the last may be empty, after ``BREAK`` or without text."""
    done: list[list[_Pair]] = []
    current: list[_Pair] = []
    comma: int | None = None  # where in ``current`` the last comma is
    for pair in _pairs(weighted, tokenize):
        if pair is None:
            done.append(current)
            current, comma = [], None
            continue
        if len(current) == size:
            is_near = comma is not None and pair[0] != comma_id and size - comma <= backtrack
            keep = comma + 1 if comma is not None and is_near else size
            done.append(current[:keep])
            current, comma = current[keep:], None
        elif pair[0] == comma_id:
            comma = len(current)
        current.append(pair)
    return [*done, current]


def _pairs(weighted: Sequence[Weighted], tokenize: Callable[[str], Sequence[int]]) -> Iterator[_Pair | None]:
    """Yield each token with its weight, and None for ``BREAK``."""
    for entry in weighted:
        if entry == BREAK:
            yield None
        else:
            yield from ((token, entry.weight) for token in tokenize(entry.text))


def _framed(pairs: Sequence[_Pair], start_id: int, end_id: int, pad_id: int, size: int) -> Chunk:
    tokens = [start_id, *(token for token, _ in pairs)]
    # An end typed into the prompt ends the chunk for the encoder, so that what follows is padding.
    tokens = tokens[: tokens.index(end_id)] if end_id != pad_id and end_id in tokens else tokens
    padding = [pad_id] * (size + 1 - len(tokens))
    weights = (1.0, *(weight for _, weight in pairs), *[1.0] * (size + 1 - len(pairs)))
    return Chunk((*tokens, end_id, *padding), weights)
