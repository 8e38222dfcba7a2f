"""The token counter beside a prompt: how much of a chunk the text takes, as the chosen model counts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from modules.families.base import Vocabulary
from modules.families.clip_text import with_words
from modules.prompts.chunks import count
from modules.prompts.grammar import compose, parse_attention, strip_comments
from modules.prompts.schedule import schedule
from modules.prompts.tags import extract

STEPS = 20
# Any id that no vocabulary has: learned words are only counted here.
LEARNED = -2


def count_tokens(
    prompt: str, vocabulary: Vocabulary, backtrack: int = 20, words: Mapping[str, int] = MappingProxyType({})
) -> tuple[int, int]:
    """Return the tokens of ``prompt`` and the room of its chunks, such as (12, 75).

    Tags and comments do not count; of prompts joined by ``AND``, and of the stages of prompt editing, the longest
    does. ``backtrack`` is the number of tokens to look back for a comma where a chunk is full. ``words`` take the
    number of tokens they have there.
    """
    text, _ = extract(strip_comments(prompt))
    encode = with_words(vocabulary.encode, {word: (LEARNED,) * number for word, number in words.items()})
    stages = {stage.text for part in compose(text) for stage in schedule(part.text, STEPS)}
    return max(
        (count(parse_attention(stage), encode, comma_id=vocabulary.comma_id, backtrack=backtrack,
               size=vocabulary.chunk_size)
         for stage in stages), default=(0, vocabulary.chunk_size),
    )
