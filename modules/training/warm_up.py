"""A head start for the text encoder: the denoiser's task at pure noise, without the denoiser.

Where a latent is all noise, the best prediction is the mean of the latents that share its caption. A linear head on the
mean of the context learns that mean directly, in seconds instead of thousands of denoiser steps; attention starts out
uniform, so this mean is what the denoiser reads first. The head is thrown away.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import nn

from modules.training.config import DiffusionConfig
from modules.training.denoiser import Denoiser
from modules.training.latents import Cache
from modules.training.loop import adam, apply_rate, generator

logger = logging.getLogger(__name__)


def teach(model: Denoiser, cache: Cache, config: DiffusionConfig, device: torch.device) -> float:
    """Train ``model.text`` for ``config.text_warmup`` steps; return the share of the latents' variance explained last.

    ``model`` and ``cache`` are on ``device``. The same seed gives the same weights on the CPU.
    """
    loop = config.loop
    wanted = cache.latents.flatten(1)
    centre = wanted.float().mean(0)
    spread = (wanted.float() - centre).square().mean()
    head = nn.utils.skip_init(nn.Linear, config.text_width, wanted.shape[1], device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = adam([{"params": [*model.text.parameters(), *head.parameters()]}], loop)
    explained = 0.0
    for step in range(config.text_warmup):
        apply_rate(optimizer, config.text_warmup_lr * (1 - step / config.text_warmup))
        source = generator(device, loop.seed, "captions", step)
        index = torch.randint(len(wanted), (config.text_warmup_batch,), generator=source, device=device)
        wording = torch.randint(cache.tokens.shape[1], index.shape, generator=source, device=device)
        context = model.encode(cache.tokens[index, wording].long()).mean(1)
        loss = F.mse_loss(head(context), wanted[index].float() - centre)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 99 or step == config.text_warmup - 1:
            explained = 1 - float(loss.detach() / spread)
            logger.info("captions %d/%d  explained %.3f", step + 1, config.text_warmup, explained)
    return explained
