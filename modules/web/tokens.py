"""The token counter beside a prompt: how much of a chunk the text takes, as the chosen model counts."""

from __future__ import annotations

import functools
from typing import Any

from modules.core.errors import DarkroomError
from modules.families import detect
from modules.families.base import Vocabulary
from modules.families.clip_tokenizer import clip_tokenizer
from modules.library.headers import read_header
from modules.prompts.chunks import CHUNK_SIZE, count
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


def chosen_vocabulary(app: Any) -> Vocabulary:
    """Return how the chosen checkpoint counts; CLIP's own vocabulary where there is none, or none that is known."""
    try:
        checkpoints = app.library.checkpoints()
        wanted = app.settings.get().sd_model_checkpoint
        checkpoint = app.library.find_checkpoint(wanted) if wanted else checkpoints[0]
        return _vocabulary(checkpoint.path, checkpoint.mtime)
    except (DarkroomError, IndexError):
        return usual_vocabulary()


@functools.lru_cache(maxsize=8)
def _vocabulary(path: str, mtime: float) -> Vocabulary:
    """Return the vocabulary of the checkpoint at ``path``; ``mtime`` makes a replaced file count anew."""
    header = read_header(path)
    family, _ = detect(header)
    return family.vocabulary(header)


def usual_vocabulary() -> Vocabulary:
    """Return CLIP's vocabulary in chunks of 75 tokens."""
    tokenizer = clip_tokenizer()
    return Vocabulary(tokenizer.encode, tokenizer.comma_id, CHUNK_SIZE)
