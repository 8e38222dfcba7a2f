import dataclasses

import peft
import pytest
import torch

from modules.core.errors import InvalidRequest
from modules.training import loop, lora
from modules.training.config import LoraConfig
from modules.training.denoiser import Denoiser, build_text, build_unet
from modules.training.latents import Cache
from modules.training.lora import LoraStage
from tests.training.conftest import loop_config

CPU = torch.device("cpu")
EVERYTHING = LoraConfig(
    3, 1.5, ("attention", "feed_forward", "projection", "convolution"), ("attention", "feed_forward"), precision="fp32"
)


@pytest.fixture
def cache(source):
    return Cache(
        torch.ones(6, 4, 8, 8).half(), torch.randint(0, 500, (6, 2, 24), generator=source).to(torch.int32),
        torch.full((24,), 559, dtype=torch.int32),
    )


def denoiser(config):
    torch.manual_seed(0)
    return Denoiser(build_unet(config.diffusion, 4, 8), build_text(config.diffusion, 560, 558, 559))


def stage(config, cache, folder, own=EVERYTHING, **changes):
    changed = dataclasses.replace(config.diffusion, loop=loop_config(lr=5e-3, **changes))
    model = denoiser(config)
    lora.attach(model, own, 0)
    return LoraStage(changed, model, cache, cache.tokens[:2, 0].long(), lambda found: found[:, :3], CPU, folder)


def inputs(source):
    return (torch.randn(2, 4, 8, 8, generator=source), torch.tensor([10, 900]),
            torch.randint(0, 500, (2, 24), generator=source))


def randomised(model, source):
    """Give every adapter something to add."""
    for network in (model.unet, model.text):
        for _, adapter in lora.adapters(network):
            torch.nn.init.normal_(adapter.up.weight, std=0.1, generator=source)


@torch.no_grad()
def test_adapters_change_nothing_at_first_and_something_later(config, source):
    plain, adapted, given = denoiser(config), denoiser(config), inputs(source)
    lora.attach(adapted, EVERYTHING, 0)
    assert torch.equal(plain(*given), adapted(*given))
    randomised(adapted, source)
    assert not torch.allclose(plain(*given), adapted(*given), atol=1e-2)


def test_kinds_of_layers_are_those_asked_for(config):
    model = denoiser(config)
    found = lora.layers(model.unet, ["attention"])
    assert found and all(name.split(".attn")[1][2:] in ("to_q", "to_k", "to_v", "to_out.0") for name in found)
    assert len(lora.layers(model.text, ["attention", "feed_forward"])) == 6
    assert all(isinstance(layer, torch.nn.Conv2d) for layer in lora.layers(model.unet, ["convolution"]).values())


@pytest.mark.parametrize("own", [LoraConfig(unet=("atention",)), LoraConfig(text=("convolution",)),
                                 LoraConfig(precision="fp8")])
def test_what_is_not_there_is_said(config, own):
    with pytest.raises(InvalidRequest):
        lora.attach(denoiser(config), own, 0)


def test_only_adapters_learn(config, cache, tmp_path):
    trainer = stage(config, cache, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for number in range(2):
        trainer.step(number)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) != (".lora." in name), name
    assert set(trainer.state()["model"]) == {name for name in before if ".lora." in name}


def test_the_loss_falls(config, cache, tmp_path):
    trainer = stage(config, cache, tmp_path, steps=20, batch=8)

    def loss():
        with torch.no_grad():
            return float(trainer.loss(64, torch.Generator().manual_seed(5)))

    before = loss()
    for number in range(20):
        trainer.step(number)
    assert loss() < 0.9 * before


def test_resuming_is_exact_with_dropout(config, cache, tmp_path):
    own = dataclasses.replace(EVERYTHING, rank=4, dropout=0.5)
    whole = stage(config, cache, tmp_path, own, sample_every=1)
    loop.run(whole, whole.config.loop, tmp_path / "whole")
    part = stage(config, cache, tmp_path, own, sample_every=1)
    assert not loop.run(part, part.config.loop, tmp_path / "part", loop.Limits(seconds=0))
    rest = stage(config, cache, tmp_path, own)
    assert loop.run(rest, rest.config.loop, tmp_path / "part")
    for name, value in whole.state()["model"].items():
        assert torch.equal(value, rest.state()["model"][name])
        assert torch.equal(whole.average.weights[name], rest.average.weights[name])


def test_ranks_are_left_out_in_training_alone_and_the_mean_stays(source):
    layer = torch.nn.Linear(5, 7)
    adapter = lora.LowRank(layer, LoraConfig(64, 64.0, dropout=0.25), source)
    torch.nn.init.ones_(adapter.up.weight)
    given = torch.randn(3, 5, generator=source)
    whole = adapter(given)
    drawn = []
    for _ in range(400):
        adapter.drop(source)
        drawn.append(adapter(given))
    assert not torch.equal(drawn[0], whole) and not torch.equal(drawn[0], drawn[1])
    assert torch.allclose(torch.stack(drawn).mean(0), whole, atol=0.15 * float(whole.detach().abs().max()))
    assert torch.equal(adapter.eval()(given), whole)


@torch.no_grad()
def test_peft_computes_the_same(config, source):
    """The same numbers in another implementation's adapters: linear layers, convolutions and their strides."""
    ours, theirs, given = denoiser(config), denoiser(config), inputs(source)
    lora.attach(ours, EVERYTHING, 0)
    randomised(ours, source)
    for part, kinds in (("unet", EVERYTHING.unet), ("text", EVERYTHING.text)):
        network, adapted = getattr(theirs, part), dict(lora.adapters(getattr(ours, part)))
        wanted = peft.LoraConfig(r=3, lora_alpha=1.5, target_modules=list(lora.layers(network, kinds)))
        peft.inject_adapter_in_model(wanted, network)
        modules = dict(network.named_modules())
        for name, adapter in adapted.items():
            modules[name].lora_A["default"].weight.copy_(adapter.down.weight)
            modules[name].lora_B["default"].weight.copy_(adapter.up.weight)
    assert torch.allclose(ours(*given), theirs(*given), atol=1e-5)
