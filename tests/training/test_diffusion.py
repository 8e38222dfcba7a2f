import dataclasses

import pytest
import torch

from modules.core.errors import InvalidRequest
from modules.training import diffusion, loop
from modules.training.denoiser import Denoiser, build_text, build_unet
from modules.training.latents import Cache
from tests.training.conftest import loop_config

CPU = torch.device("cpu")


@pytest.fixture
def cache(source):
    return Cache(
        torch.randn(6, 4, 8, 8, generator=source).half(),
        torch.randint(0, 500, (6, 2, 24), generator=source).to(torch.int16),
        torch.full((24,), 559, dtype=torch.int16),
    )


def stage(config, cache, folder, **changes):
    changed = dataclasses.replace(config.diffusion, **changes)
    torch.manual_seed(0)
    model = Denoiser(build_unet(changed, 4, 8), build_text(changed, 560, 558, 559))
    prompts = diffusion.first_wordings(cache.tokens, 2)
    return diffusion.DiffusionStage(changed, model, cache, prompts, lambda found: found[:, :3], CPU, folder)


def weights(stage):
    return torch.cat([value.detach().flatten() for value in stage.model.parameters()])


def test_text_encoder_and_unet_learn_together(config, cache, tmp_path):
    trainer = stage(config, cache, tmp_path)
    text, unet = (
        [value.detach().clone() for value in part.parameters()] for part in (trainer.model.text, trainer.model.unet)
    )
    trainer.step(0)
    for before, part in ((text, trainer.model.text), (unet, trainer.model.unet)):
        assert sum(not torch.equal(a, b) for a, b in zip(before, part.parameters(), strict=True)) > len(before) / 2


def test_a_few_steps_reduce_the_loss(config, cache, tmp_path):
    flat = dataclasses.replace(cache, latents=torch.ones_like(cache.latents))
    trainer = stage(config, flat, tmp_path, loop=loop_config(steps=30, batch=8, lr=2e-3, warmup=5, decay=0.1))

    def loss():  # over the same 64 levels, noises and captions
        with torch.no_grad():
            return float(trainer.loss(64, torch.Generator().manual_seed(5)))

    before = loss()
    for number in range(30):
        trainer.step(number)
    assert loss() < 0.5 * before


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_is_exact(config, cache, tmp_path, optimizer):
    shape = loop_config(steps=4, ema_on_cpu=True)
    whole, part, rest = (stage(config, cache, tmp_path, loop=shape, optimizer=optimizer) for _ in range(3))
    loop.run(whole, shape, tmp_path / "whole")
    loop.run(part, shape, tmp_path / "part", loop.Limits(seconds=0))
    loop.run(rest, shape, tmp_path / "part")
    assert torch.equal(weights(whole), weights(rest))
    for name, value in whole.average.weights.items():
        assert torch.equal(value, rest.average.weights[name])


def test_the_run_keeps_to_its_precision(config, cache, tmp_path):
    exact, half = (
        float(stage(config, cache, tmp_path, loop=loop_config(precision=precision)).step(0)["loss"])
        for precision in ("fp32", "bf16")
    )
    assert half == pytest.approx(exact, rel=0.05) and half != exact


def test_captions_are_dropped_at_the_rate_asked_for(config, cache, tmp_path, source):
    trainer = stage(config, cache, tmp_path, dropout=0.3)
    latents, tokens = trainer.batch(2000, source)
    assert latents.dtype == torch.float32 and tokens.dtype == torch.int64
    assert 0.25 < (tokens == 559).all(1).float().mean() < 0.35


def test_a_wording_belongs_to_its_latents(config, cache, tmp_path, source):
    trainer = stage(config, cache, tmp_path, dropout=0.0)
    latents, tokens = trainer.batch(50, source)
    for latent, ids in zip(latents, tokens, strict=True):
        index = int((cache.latents.float() == latent).flatten(1).all(1).nonzero()[0])
        assert any(torch.equal(ids, wording.long()) for wording in cache.tokens[index])


def test_parts_of_a_batch_add_up(config, cache, tmp_path):
    trainer = stage(config, cache, tmp_path, loop=loop_config(accumulate=2, batch=4))
    metrics = trainer.step(0)
    source = loop.generator(CPU, 0, "diffusion", 0)
    fresh = stage(config, cache, tmp_path, loop=loop_config(accumulate=2, batch=4))
    wanted = (fresh.loss(2, source) + fresh.loss(2, source)) / 2
    assert float(metrics["loss"]) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_a_perfect_network_has_no_loss(config, cache, tmp_path, source):
    """With one latent of zeros and no noise scale to guess, v is alpha times the noise: a network that knows both."""
    trainer = stage(config, dataclasses.replace(cache, latents=torch.zeros_like(cache.latents)), tmp_path)
    levels = trainer.process.alphas_cumprod
    trainer.forward = lambda noisy, steps, tokens: noisy * (levels[steps] / (1 - levels[steps])).sqrt()[
        :, None, None, None
    ]
    assert float(trainer.loss(8, source)) < 1e-8


def test_a_grid_is_drawn_from_the_average(config, cache, tmp_path):
    trainer = stage(config, cache, tmp_path)
    before = weights(trainer)
    trainer.sample(3)
    assert (tmp_path / "samples-0000003.png").is_file() and torch.equal(before, weights(trainer))


def test_muon_moves_what_lies_between_the_ends_of_the_denoiser(config, cache, tmp_path):
    trainer = stage(config, cache, tmp_path, optimizer="muon")
    names = {id(value): name for name, value in trainer.model.named_parameters()}
    groups = trainer.optimizer.param_groups
    moved = {names[id(value)] for group in groups if group["matrix"] for value in group["params"]}
    others = set(names.values()) - moved
    assert "unet.mid_block.resnets.0.conv1.weight" in moved and "unet.time_embedding.linear_1.weight" in moved
    assert {"unet.conv_in.weight", "unet.conv_out.weight", "unet.conv_norm_out.weight"} <= others
    assert all(name.endswith(".weight") and name.startswith("unet.") for name in moved)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_an_unknown_optimizer_is_refused(config, cache, tmp_path):
    with pytest.raises(InvalidRequest, match="sgd"):
        stage(config, cache, tmp_path, optimizer="sgd")
