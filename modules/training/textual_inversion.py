"""Textual inversion (Gal et al. 2022): vectors of new tokens, learned while all else is frozen."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import CLIPTokenizer

from modules.core.errors import InvalidRequest
from modules.training.config import EmbeddingConfig
from modules.training.denoiser import Denoiser


class Vocabulary(nn.Module):
    """A text encoder's ``table`` and, for the token ids behind its end, ``vectors`` [n, width] float32."""

    def __init__(self, table: nn.Embedding, vectors: torch.Tensor) -> None:
        super().__init__()
        self.table = table
        self.vectors = nn.Parameter(vectors.clone())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        size = self.table.num_embeddings
        known: torch.Tensor = self.table(tokens.clamp(max=size - 1))
        return torch.where((tokens < size)[..., None], known, self.vectors[(tokens - size).clamp(min=0)])


def pieces(config: EmbeddingConfig) -> list[str]:
    """Return what stands for the word's vectors in a text that is given to the tokenizer."""
    return [f"<|{config.word}:{number}|>" for number in range(config.vectors)]


def attach(model: Denoiser, tokenizer: CLIPTokenizer, config: EmbeddingConfig) -> None:
    """Freeze ``model`` and give it and its ``tokenizer`` the new word.

    Its vectors are those of the words it starts as, over again until there are enough. Raises ``InvalidRequest`` where
    there are none, or where tokenizer and text encoder have vocabularies of different sizes.
    """
    table = model.text.get_input_embeddings()
    ids = tokenizer(config.start, add_special_tokens=False)["input_ids"]
    if not ids or config.vectors < 1:
        raise InvalidRequest("An embedding needs a word to start as, and at least one vector.")
    if len(tokenizer) != table.num_embeddings:
        raise InvalidRequest(f"The tokenizer has {len(tokenizer)} tokens, the text encoder {table.num_embeddings}.")
    model.requires_grad_(False)
    rows = [ids[number % len(ids)] for number in range(config.vectors)]
    tokenizer.add_tokens(pieces(config))
    model.text.set_input_embeddings(Vocabulary(table, table.weight.detach()[rows]))


def spelled(texts: Sequence[str], config: EmbeddingConfig) -> list[str]:
    """Return ``texts`` with what the tokenizer knows in place of the word."""
    word = re.compile(rf"(?<!\w){re.escape(config.word)}(?!\w)")
    return [word.sub("".join(pieces(config)), text) for text in texts]


def mentioned(captions: Sequence[str], config: EmbeddingConfig, seed: str) -> list[str]:
    """Return ``captions``, each in one of the templates; the same seed gives the same ones."""
    source = random.Random(seed)
    return [source.choice(config.templates).format(caption=caption, word=config.word) for caption in captions]


def vectors(model: Denoiser) -> torch.Tensor:
    """Return what was learned, [n, width] float32 on the CPU."""
    table = model.text.get_input_embeddings()
    assert isinstance(table, Vocabulary)
    return table.vectors.detach().float().cpu().clone()
