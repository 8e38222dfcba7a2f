"""CLIP's byte-pair tokenizer (Radford et al. 2021; Sennrich et al. 2016), in pure Python, so that a page can count.

Tokens are those of ``transformers.CLIPTokenizer`` with the same vocabulary; text is first cleaned as the original
tokenizer does it, with HTML entities, curly quotes, ligatures and full-width forms made plain.
"""

from __future__ import annotations

import functools
import gzip
import heapq
import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from modules.core.errors import InvalidModel

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
VOCABULARY_FILE = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
MERGES = 48_894
_SPECIAL = re.compile(f"({re.escape(START)}|{re.escape(END)})")
_CONTRACTION = re.compile(r"'(?:s|t|re|ve|m|ll|d)")


@dataclass(frozen=True, eq=False)
class ClipTokenizer:
    """A vocabulary (piece to id), the rank of each merge, and the ids that frame and fill a chunk."""

    vocabulary: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]
    start_id: int
    end_id: int
    pad_id: int
    words: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def comma_id(self) -> int:
        """The token of a comma that ends a word, or -1 in a vocabulary without one."""
        return self.vocabulary.get("," + WORD_END, -1)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` without start and end; special tokens spelled out in it become theirs."""
        ids: list[int] = []
        for part in _SPECIAL.split(text):
            if _SPECIAL.fullmatch(part):
                ids.append(self.start_id if part == START else self.end_id)
            else:
                ids.extend(piece for word in _words(_clean(part)) for piece in self._word(word))
        return ids

    def _word(self, word: str) -> tuple[int, ...]:
        found = self.words.get(word)
        if found is None:
            pieces = _merge([_BYTES[byte] for byte in word.encode("utf-8")], self.ranks)
            found = tuple(self.vocabulary.get(piece, self.end_id) for piece in pieces)
            if len(word) <= 32 and len(self.words) < 65_536:
                self.words[word] = found
        return found


@functools.cache
def clip_tokenizer() -> ClipTokenizer:
    """Return OpenAI's tokenizer: 49,408 tokens, padded with the end token. Read once, when first asked for."""
    with gzip.open(VOCABULARY_FILE, "rt", encoding="utf-8") as file:
        merges = [_pair(line) for line in file.read().split("\n")[1:MERGES + 1]]
    pieces = [*_ALPHABET, *(letter + WORD_END for letter in _ALPHABET), *map("".join, merges), START, END]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return _tokenizer(vocabulary, merges, END)


def folder_tokenizer(folder: str | Path) -> ClipTokenizer:
    """Return the tokenizer of a diffusers folder, from its ``vocab.json`` and ``merges.txt``.

    Raises ``InvalidModel`` where they are missing or damaged.
    """
    folder = Path(folder)
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        lines = (folder / "merges.txt").read_text("utf-8").split("\n")
        merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
        return _tokenizer({str(piece): int(index) for piece, index in vocabulary.items()}, merges, _pad(folder))
    except FileNotFoundError as error:
        raise InvalidModel(f"The model's tokenizer lacks {Path(error.filename).name}.", "Download it again.") from None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise InvalidModel(f"The model's tokenizer is damaged: {error}.", "Download the model again.") from error


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], pad: str) -> ClipTokenizer:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return ClipTokenizer(MappingProxyType(vocabulary), ranks, vocabulary[START], vocabulary[END],
                         vocabulary.get(pad, vocabulary[END]))


def _pad(folder: Path) -> str:
    """Return the padding token that the folder's configuration names; CLIP's own is the end token."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            token = json.loads((folder / name).read_text("utf-8")).get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token:
                return str(token)
    return END


def _pair(line: str) -> tuple[str, str]:
    first, second = line.split()
    return first, second


def _byte_letters() -> dict[int, str]:
    """Map each byte to a printable character: itself where it is one, else the next from U+0100 on (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + index) for index, byte in enumerate(others)}


_BYTES: Mapping[int, str] = MappingProxyType(_byte_letters())
_ALPHABET: Sequence[str] = tuple(_BYTES.values())


def _plain_forms() -> dict[int, str]:
    """Typographic quotes, ligatures and full-width forms, and what they stand for, as ftfy makes them plain."""
    forms = dict.fromkeys((0x2BC, 0x2018, 0x2019, 0x201A, 0x201B), "'")
    forms |= dict.fromkeys((0x201C, 0x201D, 0x201E, 0x201F), '"')
    wide = (*range(0xFB00, 0xFB07), *range(0xFF01, 0xFFF0), 0x3000)
    return forms | {point: unicodedata.normalize("NFKC", chr(point)) for point in wide}


_PLAIN: Mapping[int, str] = MappingProxyType(_plain_forms())


def _clean(text: str) -> str:
    text = html.unescape(html.unescape(text)).translate(_PLAIN)
    # One character at a time: lower() of a whole word turns a final Greek sigma into another letter.
    return "".join(letter.lower() for letter in unicodedata.normalize("NFC", text))


def _kind(character: str) -> str:
    if character.isspace() and not "\x1c" <= character <= "\x1f":
        return " "
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "o"


def _words(text: str) -> Iterator[str]:
    """Yield contractions, runs of letters, single digits and runs of anything else that is not space."""
    place = 0
    while place < len(text):
        contraction = _CONTRACTION.match(text, place)
        if contraction:
            yield contraction.group()
            place = contraction.end()
            continue
        kind, end = _kind(text[place]), place + 1
        if kind in "Lo":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[place:end]
        place = end


def _merge(letters: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Merge neighbours, the earliest learned pair first, until none is known; n log n in the length of the word."""
    pieces: list[str] = [*letters[:-1], letters[-1] + WORD_END]
    after = list(range(1, len(pieces) + 1))
    before = list(range(-1, len(pieces) - 1))
    queue: list[tuple[int, int, str, str]] = []

    def offer(left: int) -> None:
        right = after[left] if left >= 0 else len(pieces)
        if right < len(pieces):
            pair = (pieces[left], pieces[right])
            if pair in ranks:
                heapq.heappush(queue, (ranks[pair], left, *pair))

    for index in range(len(pieces) - 1):
        offer(index)
    while queue:
        _, left, first, second = heapq.heappop(queue)
        right = after[left]
        if pieces[left] != first or right >= len(pieces) or pieces[right] != second:
            continue
        pieces[left], pieces[right] = first + second, ""
        after[left] = after[right]
        if after[right] < len(pieces):
            before[after[right]] = left
        offer(left)
        offer(before[left])
    return [piece for piece in pieces if piece]
