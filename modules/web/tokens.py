"""The token counter beside a prompt: how much of a chunk the text takes, as the chosen model counts."""

from __future__ import annotations

from modules.families.base import Vocabulary
from modules.prompts.chunks import count
from modules.prompts.grammar import compose, parse_attention, strip_comments
from modules.prompts.schedule import schedule
from modules.prompts.tags import extract

STEPS = 20


def count_tokens(prompt: str, vocabulary: Vocabulary, backtrack: int = 20) -> tuple[int, int]:
    """Return the tokens of ``prompt`` and the room of its chunks, such as (12, 75).

    Tags and comments do not count; of prompts joined by ``AND``, and of the stages of prompt editing, the longest
    does. ``backtrack`` is the number of tokens to look back for a comma where a chunk is full.
    """
    text, _ = extract(strip_comments(prompt))
    stages = {stage.text for part in compose(text) for stage in schedule(part.text, STEPS)}
    return max(
        (count(parse_attention(stage), vocabulary.encode, comma_id=vocabulary.comma_id, backtrack=backtrack,
               size=vocabulary.chunk_size)
         for stage in stages), default=(0, vocabulary.chunk_size),
    )
