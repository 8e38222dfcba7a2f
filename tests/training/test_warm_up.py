import dataclasses

import pytest
import torch

from modules.training import warm_up
from modules.training.denoiser import Denoiser, build_text, build_unet
from modules.training.latents import Cache
from tests.training.conftest import loop_config

CPU = torch.device("cpu")


@pytest.fixture
def cache(source):
    """Twelve captions of three words, each with its own latent."""
    tokens = torch.randint(0, 500, (12, 1, 24), generator=source)
    tokens[:, :, 3:] = 559
    return Cache(torch.randn(12, 4, 8, 8, generator=source), tokens, torch.full((24,), 559))


def model_of(config):
    torch.manual_seed(0)
    return Denoiser(build_unet(config.diffusion, 4, 8), build_text(config.diffusion, 560, 558, 559))


def explained(model, cache):
    """How much of the latents a least-squares map from the mean context explains, by torch.linalg alone."""
    with torch.no_grad():
        context = model.encode(cache.tokens[:, 0]).mean(1).double()
    context = (context - context.mean(0))[:, :8]  # fewer features than captions, so that a fit says something
    wanted = cache.latents.flatten(1).double()
    wanted = wanted - wanted.mean(0)
    rest = wanted - context @ torch.linalg.lstsq(context, wanted).solution
    return 1 - float(rest.square().mean() / wanted.square().mean())


def warm(config, **changes):
    return dataclasses.replace(config.diffusion, loop=loop_config(), text_warmup=150, text_warmup_batch=12,
                               text_warmup_lr=3e-3, **changes)


def test_captions_come_to_stand_for_their_pictures(config, cache):
    model = model_of(config)
    assert warm_up.teach(model, cache, warm(config), CPU) > 0.9


def test_only_the_text_encoder_changes_and_the_same_way_every_time(config, cache):
    one, other, fresh = model_of(config), model_of(config), model_of(config)
    for model in (one, other):
        warm_up.teach(model, cache, warm(config), CPU)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.unet.parameters(), fresh.unet.parameters(), strict=True))


def test_captions_of_alike_pictures_move_together(config, cache):
    """Half of the captions share one latent, the others another: their contexts must fall into two groups."""
    two = torch.arange(12) % 2
    grouped = dataclasses.replace(cache, latents=cache.latents[:2][two])
    model = model_of(config)
    before = explained(model, grouped)
    warm_up.teach(model, grouped, warm(config), CPU)
    with torch.no_grad():
        context = model.encode(grouped.tokens[:, 0]).mean(1)
    within = torch.cdist(context[two == 0], context[two == 0]).max()
    between = torch.cdist(context[two == 0], context[two == 1]).min()
    assert between > within and explained(model, grouped) > before
