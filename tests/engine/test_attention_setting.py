"""The setting and the flags of attention reach every layer of the denoiser and of the autoencoder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.families import detect
from modules.library.files import Library
from modules.library.headers import read_header
from modules.runtime import attention_backends
from modules.runtime.attention_choice import open_attention
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import REQUEST, Recorder


@pytest.fixture
def sub_quadratic(monkeypatch):
    """Count the calls of sub-quadratic attention."""
    calls = []
    compute = attention_backends.sub_quadratic

    def counted(*tensors, **rest):
        calls.append(tensors[0].shape)
        return compute(*tensors, **rest)

    monkeypatch.setattr(attention_backends, "sub_quadratic", counted)
    return calls


def engine_with(library: Library, **flags: object) -> Engine:
    placement = Placement(attention=open_attention("cpu", (0, 0), flags, lambda: 1 << 30))
    return Engine(library, Models(10**9), placement)


def picture(engine: Engine, **settings: object) -> np.ndarray:
    watch = Recorder()
    engine.generate(dataclasses.replace(REQUEST, settings=Settings(**settings)), (), watch)
    return np.asarray(watch.pictures[0].image, dtype=np.int16)


def attention_layers(library: Library, component: str) -> int:
    path = library.checkpoints()[0].path
    family, variant = detect(read_header(path))
    module = family.load(variant, path, None, Placement()).modules[component]
    if component == "vae":
        module = module.decoder
    return sum(hasattr(layer, "to_q") for layer in module.modules())


def test_the_setting_is_followed_at_every_layer_of_every_call(library, sub_quadratic):
    engine = engine_with(library)
    plain = picture(engine)
    assert sub_quadratic == []
    pieces = picture(engine, cross_attention_optimization="sub-quadratic")
    calls = REQUEST.steps * attention_layers(library, "unet") + attention_layers(library, "vae")
    assert len(sub_quadratic) == calls > 0
    assert np.abs(pieces - plain).max() <= 1
    assert np.array_equal(picture(engine), plain) and len(sub_quadratic) == calls


def test_a_flag_decides_where_the_setting_is_automatic(library, sub_quadratic):
    engine = engine_with(library, opt_sub_quad_attention=True)
    picture(engine)
    flagged = len(sub_quadratic)
    assert flagged > 0
    picture(engine, cross_attention_optimization="sdp - scaled dot product")
    assert len(sub_quadratic) == flagged


def test_channels_last_holds_convolutions_with_their_channels_together(library):
    path = library.checkpoints()[0].path
    family, variant = detect(read_header(path))
    models = [family.load(variant, path, None, Placement(channels_last=flag)) for flag in (False, True)]
    for model, flag in zip(models, (False, True), strict=True):
        for name in ("unet", "vae"):
            kernels = [weight for weight in model.modules[name].parameters()
                       if weight.ndim == 4 and min(weight.shape[1:]) > 1]
            assert kernels
            assert all(weight.is_contiguous(memory_format=torch.channels_last) is flag for weight in kernels)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(*(family.decode(model, latents) for model in models), rtol=1e-4, atol=1e-4)
