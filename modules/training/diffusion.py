"""The diffusion stage: what is not frozen of the denoiser and its text encoder, on cached latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.core.errors import InvalidRequest
from modules.training import losses, noise, sample, warm_up
from modules.training.config import DiffusionConfig
from modules.training.denoiser import Denoiser
from modules.training.grids import save_grid
from modules.training.latents import Cache
from modules.training.loop import Average, adam, apply_rate, autocast, generator, learned, learned_state, muon, rate

Decode = Callable[[torch.Tensor], torch.Tensor]


def optimizer(model: Denoiser, config: DiffusionConfig) -> torch.optim.Optimizer:
    """Return the optimizer of what is not frozen of ``model``; raises ``InvalidRequest`` for one that is not known."""
    text: dict[str, Any] = {"params": learned(model.text), "scale": config.text_lr_scale}
    if config.optimizer == "adamw":
        return adam(_filled({"params": learned(model.unet)}, text), config.loop)
    if config.optimizer == "muon":
        hidden, others = matrices(model)
        return muon(_filled({"params": others}, {"params": hidden, "matrix": True}, text), config.loop)
    raise InvalidRequest(f"There is no optimizer {config.optimizer}.", "Use adamw or muon.")


def _filled(*groups: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def matrices(model: Denoiser) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return what is learned of the denoiser: matrices between hidden layers, and all else (ends, biases, norms)."""
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, value in model.unet.named_parameters():
        if value.requires_grad:
            ends = name.startswith(("conv_in.", "conv_out."))
            (others if ends or value.ndim < 2 else hidden).append(value)
    return hidden, others


class DiffusionStage:
    """Trains what is not frozen of ``model`` on ``cache``.

    Draws ``prompts`` (token ids [n, positions]) through ``decode`` as it goes.
    """

    def __init__(
        self, config: DiffusionConfig, model: Denoiser, cache: Cache, prompts: torch.Tensor, decode: Decode,
        device: torch.device, folder: Path,
    ) -> None:
        loop = config.loop
        self.config, self.device, self.folder, self.decode = config, device, folder, decode
        self.cache = Cache(cache.latents.to(device), cache.tokens.to(device), cache.empty.to(device))
        self.prompts = prompts.to(device)
        self.process = noise.process(config, device)
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.forward: Any = torch.compile(self.model) if loop.compile else self.model
        self.optimizer = optimizer(self.model, config)
        self.average = self.fresh_average()

    def warm_up(self) -> None:
        """Let the text encoder learn what its captions look like on average, before the first step."""
        warm_up.teach(self.model, self.cache, self.config, self.device)
        self.average = self.fresh_average()

    def fresh_average(self) -> Average:
        """Return an average that starts at the weights as they are."""
        return Average(self.model, self.config.loop.ema, torch.device("cpu") if self.config.loop.ema_on_cpu else None)

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Run one optimizer step; returns the weighted loss, averaged over its parts."""
        loop, parts = self.config.loop, self.config.loop.accumulate
        source = generator(self.device, loop.seed, "diffusion", number)
        apply_rate(self.optimizer, rate(loop, number))
        total = torch.zeros((), device=self.device)
        for _ in range(parts):
            loss = self.loss(loop.batch // parts, source) / parts
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(learned(self.model), loop.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model, number)
        return {"loss": total, "norm": norm}

    def batch(self, count: int, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return random latents and one wording of each, some replaced by the empty caption (Ho and Salimans 2022)."""
        cache, device = self.cache, self.device
        index = torch.randint(len(cache.latents), (count,), generator=source, device=device)
        wording = torch.randint(cache.tokens.shape[1], (count,), generator=source, device=device)
        dropped = torch.rand(count, generator=source, device=device) < self.config.dropout
        tokens = torch.where(dropped[:, None], cache.empty, cache.tokens[index, wording])
        return cache.latents[index].float(), tokens.long()

    def loss(self, count: int, source: torch.Generator) -> torch.Tensor:
        """Return the weighted squared error of one part of a batch."""
        latents, tokens = self.batch(count, source)
        grain = torch.randn(latents.shape, generator=source, device=self.device)
        steps = noise.spread_steps(count, source)
        noisy, target = self.process.mix(latents, grain, steps)
        with autocast(self.device, self.config.loop.precision):
            output = self.forward(noisy, steps, tokens)
        error = (output.float() - target).square().mean((1, 2, 3))
        low, high = self.config.snr_range
        weight = losses.snr_weight(self.process.snr(steps), low, high, self.config.prediction)
        return (weight * error).mean()

    def sample(self, number: int) -> None:
        """Save a grid of the fixed prompts."""
        source = generator(torch.device("cpu"), self.config.loop.seed, "grid", 0)
        config, settings, empty = self.config, noise.scheduler_settings(self.config), self.cache.empty.long()
        with self.average.lent(self.model), autocast(self.device, config.loop.precision):
            latents = sample.draw_latents(
                self.model, self.prompts, empty, settings, config.sample_steps, config.guidance_scale, source
            )
        save_grid(self.decode(latents), self.folder / f"samples-{number:07}.png", 8)

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {
            "model": learned_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict({**self.model.state_dict(), **state["model"]})
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])


def first_wordings(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ids of ``count`` evenly spread scenes' first wording: prompts for a grid."""
    chosen: Sequence[int] = torch.linspace(0, len(tokens) - 1, count).long().tolist()
    return tokens[chosen, 0].long()
