import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler

from modules.core.errors import InvalidRequest
from modules.training import noise

CPU = torch.device("cpu")


def made(config, **changes):
    return noise.process(dataclasses.replace(config.diffusion, **changes), CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_levels_noisy_latents_and_targets_are_those_of_diffusers(config, prediction, source):
    changed = dataclasses.replace(config.diffusion, prediction=prediction)
    scheduler = DDIMScheduler(**noise.scheduler_settings(changed))
    own = noise.process(changed, CPU)
    assert torch.allclose(own.alphas_cumprod, scheduler.alphas_cumprod, rtol=1e-4)
    latents, grain = torch.randn(2, 3, 4, 2, 2, generator=source)
    steps = torch.tensor([0, 500, 999])
    noisy, target = own.mix(latents, grain, steps)
    assert torch.allclose(noisy, scheduler.add_noise(latents, grain, steps), atol=1e-5)
    wanted = grain if prediction == "epsilon" else scheduler.get_velocity(latents, grain, steps)
    assert torch.allclose(target, wanted, atol=1e-5)


def test_zero_terminal_levels_are_those_of_diffusers(config):
    own = made(config, zero_snr=True)
    theirs = DDIMScheduler(**noise.scheduler_settings(dataclasses.replace(config.diffusion, zero_snr=True)))
    assert torch.allclose(own.alphas_cumprod, theirs.alphas_cumprod, atol=1e-6)
    assert own.alphas_cumprod[-1] == 0 and own.snr(torch.tensor([999])) == 0


def test_snr_is_signal_over_noise(config):
    own = made(config)
    level = own.alphas_cumprod[300]
    assert own.snr(torch.tensor([300])).item() == pytest.approx(float(level / (1 - level)))


def test_epsilon_cannot_start_from_pure_noise(config):
    with pytest.raises(InvalidRequest, match="v_prediction"):
        made(config, prediction="epsilon", zero_snr=True)


def test_steps_are_spread_over_the_range(source):
    draws = torch.stack([noise.spread_steps(8, source) for _ in range(400)])
    parts = draws // (noise.TIMESTEPS // 8)
    assert torch.equal(parts, torch.arange(8).expand(400, 8))
    assert draws.min() < 10 and draws.max() > 990 and draws.max() < noise.TIMESTEPS
    assert abs(draws.float().mean() - 499.5) < 10
