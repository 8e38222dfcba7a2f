"""The token counter beside a prompt: how much of a chunk of 75 tokens the text takes."""

from __future__ import annotations

from modules.families.clip_tokenizer import clip_tokenizer
from modules.prompts.chunks import count
from modules.prompts.grammar import compose, parse_attention, strip_comments
from modules.prompts.schedule import schedule
from modules.prompts.tags import extract

STEPS = 20


def count_tokens(prompt: str, backtrack: int = 20) -> tuple[int, int]:
    """Return the tokens of ``prompt`` and the room of its chunks, such as (12, 75).

    Tags and comments do not count; of prompts joined by ``AND``, and of the stages of prompt editing, the longest
    does. ``backtrack`` is the number of tokens to look back for a comma where a chunk is full.
    """
    tokenizer = clip_tokenizer()
    text, _ = extract(strip_comments(prompt))
    stages = {stage.text for part in compose(text) for stage in schedule(part.text, STEPS)}
    return max(
        (count(parse_attention(stage), tokenizer.encode, comma_id=tokenizer.comma_id, backtrack=backtrack)
         for stage in stages), default=(0, 75),
    )
