"""Prompts to conditioning by a CLIP text encoder: chunks, CLIP skip and emphasis as AUTOMATIC1111's web UI has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modules.core.settings import Settings
from modules.families.clip_tokenizer import ClipTokenizer
from modules.prompts.chunks import Chunk, chunk
from modules.prompts.grammar import Weighted, parse_attention

if TYPE_CHECKING:
    import torch


def weighted(prompt: str, emphasis: str) -> tuple[Weighted, ...]:
    """Return the pieces of ``prompt``; emphasis ``None`` takes brackets, and ``BREAK``, literally."""
    return (Weighted(prompt, 1.0),) if emphasis == "None" else parse_attention(prompt)


def chunks(
    prompt: str, tokenizer: ClipTokenizer, settings: Settings, size: int, words: Mapping[str, Sequence[int]]
) -> tuple[Chunk, ...]:
    """Cut a prompt into chunks of ``size`` tokens and the two that frame them; ``words`` are learned embeddings."""
    return chunk(
        weighted(prompt, settings.emphasis), with_words(tokenizer.encode, words),
        comma_id=tokenizer.comma_id, start_id=tokenizer.start_id, end_id=tokenizer.end_id, pad_id=tokenizer.pad_id,
        backtrack=settings.comma_padding_backtrack, size=size,
    )


def with_words(
    tokenize: Callable[[str], list[int]], words: Mapping[str, Sequence[int]]
) -> Callable[[str], list[int]]:
    """Return ``tokenize`` that gives each of ``words``, whatever its case, the ids it has there."""
    if not words:
        return tokenize
    known = {word.lower(): list(ids) for word, ids in words.items()}
    longest_first = sorted(known, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)

    def extended(text: str) -> list[int]:
        parts = pattern.split(text)
        return [token for place, part in enumerate(parts)
                for token in (known[part.lower()] if place % 2 else tokenize(part))]
    return extended


def encode(text_encoder: Any, pieces: Sequence[Chunk], skip: int, emphasis: str) -> torch.Tensor:
    """Return the context of one prompt, float32 [77 per chunk, width], its chunks one after the other.

    ``skip`` is CLIP skip: 1 takes the last layer, 2 the one before; the final layer norm is always applied.
    """
    import torch

    device = text_encoder.device
    tokens = torch.tensor([piece.tokens for piece in pieces], device=device)
    weights = torch.tensor([piece.weights for piece in pieces], device=device)
    with torch.no_grad():
        states = hidden_states(text_encoder, tokens, skip).float()
        return emphasise(states, weights, emphasis).flatten(0, 1)


def hidden_states(text_encoder: Any, tokens: torch.Tensor, skip: int) -> torch.Tensor:
    """Return the encoder's output for ``tokens`` [chunks, tokens], with the last ``skip`` - 1 layers left out."""
    if skip <= 1:
        last: torch.Tensor = text_encoder(input_ids=tokens).last_hidden_state
        return last
    layers = text_encoder.config.num_hidden_layers
    states = text_encoder(input_ids=tokens, output_hidden_states=True).hidden_states
    normed: torch.Tensor = text_encoder.final_layer_norm(states[-min(skip, layers)])
    return normed


def emphasise(states: torch.Tensor, weights: torch.Tensor, mode: str) -> torch.Tensor:
    """Return ``states`` [chunks, tokens, width] with each token times its weight [chunks, tokens].

    ``Original`` then restores the mean of each chunk, ``No norm`` does not, ``Ignore`` and ``None`` change nothing.
    """
    if mode not in ("Original", "No norm"):
        return states
    changed = states * weights.unsqueeze(-1)
    if mode == "No norm":
        return changed
    # Where all weights are one the ratio is one up to rounding; leaving it out keeps plain prompts exact.
    ratio = states.mean(dim=(1, 2), keepdim=True) / changed.mean(dim=(1, 2), keepdim=True)
    return changed * ratio.where((weights != 1).any(dim=1)[:, None, None], ratio.new_ones(()))
