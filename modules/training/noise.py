"""The diffusion process in discrete time: levels, targets, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from modules.core.errors import InvalidModel, InvalidRequest
from modules.training.config import DiffusionConfig

TIMESTEPS = 1000
# What a scheduler of Stable Diffusion means where its settings do not say.
SCHEDULER: Mapping[str, Any] = MappingProxyType({
    "num_train_timesteps": TIMESTEPS, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "trained_betas": None, "prediction_type": "epsilon", "rescale_betas_zero_snr": False,
})


def betas(start: float, end: float) -> torch.Tensor:
    """Return Stable Diffusion's betas [1000] float64: their square roots are evenly spaced."""
    return torch.linspace(start**0.5, end**0.5, TIMESTEPS, dtype=torch.float64).square()


def zero_terminal(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Shift and scale sqrt(alpha_bar) so that the last is zero and the first unchanged (Lin et al. 2023, alg. 1)."""
    roots = alphas_cumprod.sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])).square()


@dataclass(frozen=True)
class Process:
    """``alphas_cumprod`` [1000] float32 and what the network predicts."""

    alphas_cumprod: torch.Tensor
    prediction: str

    def mix(self, latents: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the noisy latents and the target of the network at ``steps`` [n] (v: Salimans and Ho 2022, app. D)."""
        level = self.alphas_cumprod[steps][:, None, None, None]
        signal, sigma = level.sqrt(), (1 - level).sqrt()
        target = signal * noise - sigma * latents if self.prediction == "v_prediction" else noise
        return signal * latents + sigma * noise, target

    def snr(self, steps: torch.Tensor) -> torch.Tensor:
        """Return the signal-to-noise ratio alpha_bar / (1 - alpha_bar) at ``steps``."""
        level = self.alphas_cumprod[steps]
        return level / (1 - level)


def spread_steps(count: int, source: torch.Generator) -> torch.Tensor:
    """Return ``count`` random steps, one in each of as many equal parts of the range, in order.

    Over many batches every step is as frequent as any; one batch is about as hard as another (Kingma et al. 2021,
    app. I.1).
    """
    offset = torch.rand(1, generator=source, device=source.device)
    parts = torch.arange(count, device=source.device)
    return ((offset + parts) * (TIMESTEPS / count)).long().clamp_max(TIMESTEPS - 1)


def process(config: DiffusionConfig, device: torch.device) -> Process:
    """Return the process of a configuration; raises ``InvalidRequest`` for epsilon with zero terminal SNR."""
    if config.zero_snr and config.prediction != "v_prediction":
        raise InvalidRequest("At zero signal-to-noise ratio an epsilon prediction says nothing: use v_prediction.")
    levels = torch.cumprod(1 - betas(config.beta_start, config.beta_end), 0)
    levels = zero_terminal(levels) if config.zero_snr else levels
    return Process(levels.float().to(device), config.prediction)


def of_model(config: DiffusionConfig, settings: Mapping[str, Any]) -> DiffusionConfig:
    """Return ``config`` with the process of a diffusers scheduler's ``settings``.

    Raises ``InvalidModel`` for one that training does not know.
    """
    told = {**SCHEDULER, **settings}
    if told["beta_schedule"] != "scaled_linear" or told["num_train_timesteps"] != TIMESTEPS or told["trained_betas"]:
        raise InvalidModel("The model's noise schedule is not Stable Diffusion's.", "Adapters for it cannot be made.")
    return replace(
        config, beta_start=told["beta_start"], beta_end=told["beta_end"], prediction=told["prediction_type"],
        zero_snr=told["rescale_betas_zero_snr"],
    )


def scheduler_settings(config: DiffusionConfig) -> dict[str, Any]:
    """Return the same process as the settings of a diffusers scheduler."""
    return {
        "num_train_timesteps": TIMESTEPS,
        "beta_schedule": "scaled_linear",
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "prediction_type": config.prediction,
        "rescale_betas_zero_snr": config.zero_snr,
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 1,
    }
