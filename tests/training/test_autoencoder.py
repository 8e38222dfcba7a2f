import dataclasses

import pytest
import torch

from modules.training import autoencoder, checkpoint, dataset, loop
from tests.training.conftest import loop_config

CPU = torch.device("cpu")


def stage(config, data, folder, **changes):
    train, held = dataset.split(data.entries, 0.3)
    changed = dataclasses.replace(config.autoencoder, **changes)
    return autoencoder.AutoencoderStage(changed, data.select(train), data.select(held), CPU, folder)


def weights(stage):
    return torch.cat([value.detach().flatten() for value in stage.model.parameters()])


def test_pictures_are_drawn_on_white_as_often_as_asked(data, source):
    pixels = autoencoder.draw(data.rgba, 400, 0.5, 0.0, source)
    assert pixels.shape == (400, 3, 32, 32) and pixels.min() >= -1 and pixels.max() <= 1
    white = (pixels[:, :, 0, 0] == 1).all(1).float().mean()
    assert 0.45 < white < 0.62  # named grounds include white too


def test_a_few_steps_reduce_the_error_of_held_out_pictures(config, data, tmp_path):
    trainer = stage(config, data, tmp_path, loop=loop_config(steps=40, lr=1e-3, ema=0.5), linear_start=0)
    before = (autoencoder.reconstruct(trainer.model, trainer.probe) - trainer.probe).square().mean()
    for number in range(40):
        trainer.step(number)
    after = (autoencoder.reconstruct(trainer.model, trainer.probe) - trainer.probe).square().mean()
    assert after < 0.6 * before


def test_resuming_is_exact_with_the_discriminator_too(config, data, tmp_path):
    changes = {"adversarial_weight": 0.5, "adversarial_from": 0.4, "loop": loop_config(steps=5)}
    whole = stage(config, data, tmp_path, **changes)
    loop.run(whole, changes["loop"], tmp_path / "whole")
    part = stage(config, data, tmp_path, **changes)
    loop.run(part, changes["loop"], tmp_path / "part", loop.Limits(seconds=0))
    assert checkpoint.newest(tmp_path / "part")["step"] == 1
    rest = stage(config, data, tmp_path, **changes)
    loop.run(rest, changes["loop"], tmp_path / "part")
    assert torch.equal(weights(whole), weights(rest))
    for name, value in whole.average.weights.items():
        assert torch.equal(value, rest.average.weights[name])
    for one, other in zip(whole.discriminator.parameters(), rest.discriminator.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_discriminator_is_left_alone_until_its_time(config, data, tmp_path):
    trainer = stage(config, data, tmp_path, adversarial_weight=0.5, adversarial_from=0.5)
    before = [value.detach().clone() for value in trainer.discriminator.parameters()]
    trainer.step(0)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.discriminator.parameters(), strict=True))
    trainer.step(3)
    assert not all(torch.equal(a, b) for a, b in zip(before, trainer.discriminator.parameters(), strict=True))


def test_accumulated_parts_give_the_gradient_of_their_mean(config, data, tmp_path):
    trainer = stage(config, data, tmp_path, kl_weight=0.0)
    source = loop.generator(CPU, 0, "autoencoder", 0)
    for _ in range(2):
        trainer.accumulate(0.0, 2, 2, source)
    found = trainer.model.decoder.conv_out.weight.grad.clone()
    trainer.model.zero_grad()
    source = loop.generator(CPU, 0, "autoencoder", 0)
    for _ in range(2):
        trainer.accumulate(0.0, 2, 1, source)
    assert torch.allclose(2 * found, trainer.model.decoder.conv_out.weight.grad, rtol=1e-4, atol=1e-7)


def test_crops_are_of_the_size_asked_for(config, data, tmp_path, source):
    assert stage(config, data, tmp_path, crop=16).pictures(3, source).shape == (3, 3, 16, 16)


def test_a_grid_shows_originals_beside_reconstructions(config, data, tmp_path, caplog):
    trainer = stage(config, data, tmp_path)
    with caplog.at_level("INFO"):
        trainer.sample(7)
    assert (tmp_path / "reconstruction-0000007.png").is_file()
    assert "dB on white" in caplog.text


def test_the_run_keeps_to_its_precision(config, data, tmp_path):
    exact = stage(config, data, tmp_path).step(0)["fit"]
    half = stage(config, data, tmp_path, loop=loop_config(precision="bf16")).step(0)["fit"]
    assert float(half) == pytest.approx(float(exact), rel=0.1) and float(half) != float(exact)
