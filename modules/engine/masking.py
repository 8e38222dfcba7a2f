"""Keeping a part of the picture while the rest is sampled, through the denoiser alone."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from modules.engine.images import Begun
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import Space

Denoise = Callable[[torch.Tensor, float], Denoised]
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""Of what is sampled, the picture, where it is kept and the noise level: what takes the place of the first two."""


def blend(ours: torch.Tensor, theirs: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Return ``theirs`` where ``keep`` is 1, ``ours`` where it is 0."""
    return ours * (1 - keep) + theirs * keep


def at_any_level(ours: torch.Tensor, theirs: torch.Tensor, keep: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return ``blend``, whatever the noise level."""
    return blend(ours, theirs, keep)


def after_guidance(denoise: Denoise, kept: Begun, mix: Mix = at_any_level) -> Denoise:
    """Put the clean picture into every estimate (Avrahami et al. 2022, Blended Latent Diffusion), as A1111 does."""
    def masked(x: torch.Tensor, sigma: float) -> Denoised:
        denoised = denoise(x, sigma)
        return dataclasses.replace(denoised, x0=mix(denoised.x0, kept.latents, _keep(kept), sigma))
    return masked


def before_model(denoise: Denoise, kept: Begun, space: Space, mix: Mix = at_any_level) -> Denoise:
    """Show the model the noisy picture where it is kept; what it predicts is the noise of the sampler's own ``x``.

    As latent-diffusion's DDIM does (``img_orig``, Rombach et al. 2022), with the noise that the picture began with.
    """
    def masked(x: torch.Tensor, sigma: float) -> Denoised:
        seen = mix(x, _noisy(kept, space, sigma), _keep(kept), sigma)
        denoised = denoise(seen, sigma)
        moved = x - seen
        uncond = None if denoised.uncond is None else denoised.uncond + moved
        return dataclasses.replace(denoised, x0=denoised.x0 + moved, uncond=uncond)
    return masked


def differential(denoise: Denoise, kept: Begun, space: Space, sigmas: Sequence[float]) -> Denoise:
    """Keep each cell for the share of the steps that ``kept.keep`` says (Levin and Fried 2023, algorithm 1).

    Before step ``i`` of ``n`` a cell is replaced by the noisy picture while ``i / n < keep``. That the clean picture
    takes the place of its estimate one step earlier brings the sampler's own ``x`` there. Where ``keep`` is 1 it does
    so in the last step too.
    """
    descending, steps = [-sigma for sigma in sigmas], max(len(sigmas) - 1, 1)
    keep = _keep(kept)

    def masked(x: torch.Tensor, sigma: float) -> Denoised:
        step = max(bisect_right(descending, -sigma) - 1, 0)
        before, after = step / steps < keep, ((step + 1) / steps < keep) | (keep >= 1)
        denoised = denoise(blend(x, _noisy(kept, space, sigma), before.to(keep)), sigma)
        return dataclasses.replace(denoised, x0=blend(denoised.x0, kept.latents, after.to(keep)))
    return masked


def _noisy(kept: Begun, space: Space, sigma: float) -> torch.Tensor:
    """Return the picture with its own noise at a level."""
    noisy: torch.Tensor = space.add_noise(kept.latents, kept.noise, sigma)
    return noisy


def _keep(kept: Begun) -> torch.Tensor:
    return torch.zeros_like(kept.latents[:, :1]) if kept.keep is None else kept.keep
