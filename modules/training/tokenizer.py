"""A small CLIP-style vocabulary: byte-pair merges (Sennrich et al. 2016) learned from the captions."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_")

Word = tuple[str, ...]


def byte_letters() -> list[str]:
    """Return a printable character for each byte: itself where it is one, else from U+0100 on (as in GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def split_words(texts: Iterable[str]) -> Counter[Word]:
    """Count the words of ``texts`` as byte letters, the last of each marked as the end of a word."""
    letters = byte_letters()
    words: Counter[Word] = Counter()
    for text in texts:
        for word in _WORDS.findall(text.lower()):
            pieces = [letters[byte] for byte in word.encode()]
            words[(*pieces[:-1], pieces[-1] + WORD_END)] += 1
    return words


def merge(word: Word, pair: tuple[str, str]) -> Word:
    """Return ``word`` with every occurrence of ``pair`` joined."""
    pieces: list[str] = []
    for piece in word:
        if pieces and (pieces[-1], piece) == pair:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


def pairs_of(word: Word) -> Counter[tuple[str, str]]:
    """Count the neighbouring pieces of a word."""
    return Counter(zip(word, word[1:], strict=False))


def learn_merges(words: Counter[Word], count: int) -> list[tuple[str, str]]:
    """Return up to ``count`` merges, most frequent first; ties go to the pair that sorts first."""
    spelled = list(words)
    times = [words[word] for word in spelled]
    pairs: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, word in enumerate(spelled):
        _recount(pairs, places, number, word, times[number])
    merges: list[tuple[str, str]] = []
    while len(merges) < count and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for number in sorted(places[best]):
            _recount(pairs, places, number, spelled[number], -times[number])
            spelled[number] = merge(spelled[number], best)
            _recount(pairs, places, number, spelled[number], times[number])
    return merges


def _recount(
    pairs: Counter[tuple[str, str]], places: dict[tuple[str, str], set[int]], number: int, word: Word, times: int
) -> None:
    """Add a word's pairs (or take them away, where ``times`` is negative) and note where they are."""
    for pair, occurrences in pairs_of(word).items():
        pairs[pair] += occurrences * times
        if times > 0:
            places[pair].add(number)
        else:
            places[pair].discard(number)
        if not pairs[pair]:
            del pairs[pair]


def train(texts: Iterable[str], size: int, positions: int, folder: Path) -> CLIPTokenizer:
    """Write ``vocab.json`` and ``merges.txt`` of at most ``size`` tokens into ``folder`` and return the tokenizer.

    Raises ``ValueError`` when ``size`` does not hold the bytes and the two special tokens (514).
    """
    letters = byte_letters()
    pieces = [*letters, *(letter + WORD_END for letter in letters)]
    if size < len(pieces) + 2:
        raise ValueError(f"A vocabulary needs at least {len(pieces) + 2} tokens.")
    merges = learn_merges(split_words(texts), size - len(pieces) - 2)
    pieces += ["".join(pair) for pair in merges] + [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    tokenizer = read(folder, positions)
    tokenizer.save_pretrained(folder)
    return tokenizer


def read(folder: Path, positions: int) -> CLIPTokenizer:
    """Return the tokenizer of ``folder``, padding with the end token to ``positions``."""
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token=END, bos_token=START, eos_token=END,
        pad_token=END, model_max_length=positions,
    )


def encode(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Return token ids [n, positions] int64, framed and padded."""
    batch = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    ids: torch.Tensor = batch["input_ids"]
    return ids
