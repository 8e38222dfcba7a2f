import math

import pytest
import torch
from torch import nn

from modules.training import noise, sample


class Answer:
    def __init__(self, value):
        self.sample = value


class Gaussian(nn.Module):
    """The exact v prediction for data N(mean, 0.5^2), where the context is the mean."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels
        self.config = type("Config", (), {"in_channels": 1, "sample_size": 4})()

    def forward(self, noisy, step, context):
        level = self.levels[step]
        signal, sigma = level.sqrt(), (1 - level).sqrt()
        mean = context[:, :, None, None]
        gain = signal * 0.25 / (level * 0.25 + sigma**2)
        clean = mean + gain * (noisy - signal * mean)
        grain = (noisy - signal * clean) / sigma
        return Answer(signal * grain - sigma * clean)


class Model:
    def __init__(self, levels):
        self.unet = Gaussian(levels)

    def encode(self, tokens):
        return tokens.float()


def test_ddim_draws_the_gaussian_that_was_asked_for(config, source):
    own = noise.process(config.diffusion, torch.device("cpu"))
    tokens = torch.tensor([[3]]).expand(400, 1)
    settings = noise.scheduler_settings(config.diffusion)
    found = sample.draw_latents(Model(own.alphas_cumprod), tokens, torch.tensor([0]), settings, 50, 1.0, source)
    assert found.shape == (400, 1, 4, 4)
    assert float(found.mean()) == pytest.approx(3.0, abs=0.1)
    assert float(found.std()) == pytest.approx(0.5, abs=0.08)


def test_guidance_moves_beyond_the_condition(config, source):
    own = noise.process(config.diffusion, torch.device("cpu"))
    settings = noise.scheduler_settings(config.diffusion)
    tokens = torch.tensor([[1]]).expand(50, 1)
    found = sample.draw_latents(Model(own.alphas_cumprod), tokens, torch.tensor([0]), settings, 30, 3.0, source)
    assert float(found.mean()) > 1.5 and math.isfinite(float(found.mean()))


def test_decoding_undoes_the_scaling_factor():
    class Vae:
        config = type("Config", (), {"scaling_factor": 0.5})()

        def decode(self, latents):
            return Answer(latents)

    assert torch.equal(sample.decode(Vae(), torch.full((3, 3, 2, 2), 0.25), batch=2), torch.full((3, 3, 2, 2), 0.5))
