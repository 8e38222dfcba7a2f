"""The autoencoder stage: ``AutoencoderKL`` on composed pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from modules.training import losses
from modules.training.compose import GROUNDS, NATURAL, OBJECTS, colour_rows, compose
from modules.training.config import AutoencoderConfig
from modules.training.dataset import Dataset
from modules.training.grids import save_grid
from modules.training.linear_start import start_linearly
from modules.training.loop import Average, adam, apply_rate, autocast, generator, rate

PROBE = 24


def build(config: AutoencoderConfig, size: int) -> AutoencoderKL:
    """Return an untrained autoencoder; every block but the last halves the side."""
    blocks = len(config.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        mid_block_add_attention=False,
        sample_size=size,
    )


def draw(rgba: torch.Tensor, count: int, white: float, tinted: float, source: torch.Generator) -> torch.Tensor:
    """Return ``count`` random pictures [count, 3, s, s]: white, named or any ground; natural or named colours."""
    device = rgba.device
    index = torch.randint(len(rgba), (count,), generator=source, device=device)
    kind, shade = torch.rand(2, count, generator=source, device=device)
    anything = torch.rand(count, 3, generator=source, device=device)
    named = colour_rows(list(GROUNDS), GROUNDS).to(device)
    pick = torch.randint(len(named), (count,), generator=source, device=device)
    grounds = torch.where((kind < 0.5 + white / 2)[:, None], named[pick], anything)
    grounds = torch.where((kind < white)[:, None], torch.ones_like(grounds), grounds)
    tints = colour_rows(list(OBJECTS), OBJECTS).to(device)
    pick = torch.randint(len(tints), (count,), generator=source, device=device)
    colours = torch.where((shade < tinted)[:, None], tints[pick], torch.full_like(grounds, float("nan")))
    return compose(rgba[index], grounds, colours)


def fixed_pictures(rgba: torch.Tensor, ground: str = "white") -> torch.Tensor:
    """Return every picture in its own colours on one named ground."""
    count = len(rgba)
    grounds = colour_rows([ground] * count, GROUNDS).to(rgba.device)
    return compose(rgba, grounds, colour_rows([NATURAL] * count, OBJECTS).to(rgba.device))


@torch.no_grad()
def reconstruct(model: AutoencoderKL, pixels: torch.Tensor, batch: int = 16) -> torch.Tensor:
    """Return what the model makes of ``pixels`` through the mean of its latents."""
    return torch.cat([model.decode(model.encode(part).latent_dist.mean).sample for part in pixels.split(batch)])


class AutoencoderStage:
    """Trains on ``train`` and shows ``held`` pictures; everything stays on ``device``."""

    def __init__(
        self, config: AutoencoderConfig, train: Dataset, held: Dataset, device: torch.device, folder: Path
    ) -> None:
        loop = config.loop
        torch.manual_seed(loop.seed)
        self.config, self.device, self.folder = config, device, folder
        self.rgba = train.rgba.to(device)
        self.model = build(config, train.rgba.shape[-1])
        if config.linear_start:
            source = generator(torch.device("cpu"), loop.seed, "linear start", 0)
            start_linearly(self.model, draw(train.rgba, config.linear_start, config.white, config.tinted, source))
        self.model.to(device, memory_format=torch.channels_last)
        self.encode: Any = torch.compile(self.model.encode) if loop.compile else self.model.encode
        self.decode: Any = torch.compile(self.model.decode) if loop.compile else self.model.decode
        self.discriminator = losses.PatchDiscriminator().to(device) if config.adversarial_weight else None
        self.optimizer = adam([{"params": list(self.model.parameters())}], loop)
        judged = [{"params": list(self.discriminator.parameters())}] if self.discriminator else []
        self.judge = adam(judged, loop) if judged else None
        self.average = Average(self.model, loop.ema, torch.device("cpu") if loop.ema_on_cpu else None)
        half = held.rgba[:PROBE].to(device)
        self.probe = torch.cat([fixed_pictures(half), fixed_pictures(half, "blue")])

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Run one optimizer step; returns the loss terms of its last part."""
        loop, parts = self.config.loop, self.config.loop.accumulate
        source = generator(self.device, loop.seed, "autoencoder", number)
        apply_rate(self.optimizer, rate(loop, number))
        for _ in range(parts):
            metrics = self.accumulate(number / loop.steps, loop.batch // parts, parts, source)
        metrics["norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), loop.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.judge is not None and number / loop.steps >= self.config.adversarial_from:
            apply_rate(self.judge, rate(loop, number))
            self.judge.step()
            self.judge.zero_grad(set_to_none=True)
        self.average.update(self.model, number)
        return metrics

    def pictures(self, count: int, source: torch.Generator) -> torch.Tensor:
        """Return a batch, cropped at random where the configuration says so."""
        pixels = draw(self.rgba, count, self.config.white, self.config.tinted, source)
        crop, side = self.config.crop, pixels.shape[-1]
        if crop:
            top, left = torch.randint(side - crop + 1, (2,), generator=source, device=self.device).tolist()
            pixels = pixels[:, :, top : top + crop, left : left + crop]
        return pixels.contiguous(memory_format=torch.channels_last)

    def accumulate(
        self, progress: float, count: int, parts: int, source: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of one part of a batch, ``progress`` in 0..1 through the run."""
        config = self.config
        pixels = self.pictures(count, source)
        with autocast(self.device, config.loop.precision):
            posterior = self.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=source, device=self.device)
            output = self.decode(posterior.mean + posterior.std * noise).sample
        output = output.float()
        fit = losses.reconstruction(output, pixels, progress >= config.l1_from, config.gradient_weight)
        prior = losses.divergence(posterior.mean.float(), posterior.logvar.float())
        loss = fit + config.kl_weight * prior
        metrics = {"fit": fit.detach(), "kl": prior.detach(), "psnr": losses.psnr(output.detach(), pixels).mean()}
        if self.discriminator is not None and progress >= config.adversarial_from:
            loss = loss + self.adversarial(output, pixels, fit, parts)
        (loss / parts).backward()
        return metrics

    def adversarial(self, output: torch.Tensor, pixels: torch.Tensor, fit: torch.Tensor, parts: int) -> torch.Tensor:
        """Return the generator's weighted hinge term; adds the discriminator's own gradients."""
        judge = self.discriminator
        assert judge is not None
        (losses.hinge(judge(pixels), judge(output.detach())) / parts).backward()
        judge.requires_grad_(False)
        fooled = -judge(output).mean()
        weight = losses.adaptive_weight(fit, fooled, self.model.decoder.conv_out.weight)
        judge.requires_grad_(True)
        return self.config.adversarial_weight * weight * fooled

    def sample(self, number: int) -> None:
        """Save a grid of held-out pictures and their reconstructions, and log their PSNR."""
        with self.average.lent(self.model):
            output = reconstruct(self.model, self.probe)
        quality = losses.psnr(output, self.probe)
        half = len(self.probe) // 2
        caption = f"held out: {quality[:half].mean():.2f} dB on white, {quality[half:].mean():.2f} dB on blue"
        shown = torch.stack([self.probe[:half], output[:half]], 1).flatten(0, 1)
        save_grid(shown, self.folder / f"reconstruction-{number:07}.png", 12, caption)

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
        }
        if self.discriminator is not None and self.judge is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["judge"] = self.judge.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])
        if self.discriminator is not None and self.judge is not None and "judge" in state:
            self.discriminator.load_state_dict(state["discriminator"])
            self.judge.load_state_dict(state["judge"])
