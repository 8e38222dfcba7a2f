"""Pictures from a model in training: DDIM with classifier-free guidance, for sample grids and evaluation."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler

from modules.training.denoiser import Denoiser


@torch.no_grad()
def draw_latents(
    model: Denoiser, tokens: torch.Tensor, empty: torch.Tensor, settings: dict[str, Any], steps: int,
    guidance_scale: float, source: torch.Generator,
) -> torch.Tensor:
    """Return latents [n, c, h, w], scaled as in training, for token ids [n, positions]."""
    device, count = tokens.device, len(tokens)
    scheduler = DDIMScheduler(**settings)
    scheduler.set_timesteps(steps, device=device)
    context = model.encode(torch.cat([empty.expand(count, -1), tokens]))
    config = model.unet.config
    shape = (count, config.in_channels, config.sample_size, config.sample_size)
    latents = torch.randn(shape, generator=source, device=source.device).to(device)
    for step in scheduler.timesteps:
        both = model.unet(torch.cat([latents, latents]), step, context).sample.float()
        without, given = both.chunk(2)
        output = without + guidance_scale * (given - without)
        latents = scheduler.step(output, step, latents).prev_sample
    return latents


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Return pictures [n, 3, h, w] in -1..1 from scaled latents."""
    parts = (latents / vae.config.scaling_factor).split(batch)
    return torch.cat([vae.decode(part).sample.clamp(-1, 1) for part in parts])
