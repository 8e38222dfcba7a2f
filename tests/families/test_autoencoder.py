import copy

import pytest
import torch

from modules.core.errors import InvalidModel
from modules.families import autoencoder
from tests.families.conftest import load


@pytest.fixture
def vae(tiny_paths):
    return load(tiny_paths["safetensors"])[1].modules["vae"]


def latents(height=8, width=8):
    coarse = torch.randn(1, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def test_tiles_make_the_same_kind_of_picture_at_every_size(vae):
    for height, width in ((8, 8), (40, 48), (72, 64)):
        tiled = autoencoder.decode(vae, latents(height, width), tiled=True)
        assert tiled.shape == (1, 3, 8 * height, 8 * width)
        assert tiled.min() >= 0 and tiled.max() <= 1
    assert not vae.use_tiling
    whole = autoencoder.decode(vae, latents(8, 8))
    assert torch.equal(whole, autoencoder.decode(vae, latents(8, 8), tiled=True))


def test_tiles_are_taken_where_the_whole_does_not_fit(vae, monkeypatch):
    from modules.runtime import device
    decoded = []
    for free in (10**12, 10**6):
        monkeypatch.setattr(device, "available", lambda _, free=free: free)
        decoded.append(autoencoder.decode(vae, latents(40, 40)))
    assert torch.equal(decoded[1], autoencoder.decode(vae, latents(40, 40), tiled=True))
    assert not torch.equal(decoded[0], decoded[1])


def test_an_overflow_in_half_precision_is_decoded_again_in_full(vae):
    # The residual stream leaves the range of float16; the group norms after it bring it back.
    vae.decoder.conv_in.weight.data *= 50_000
    vae.half()
    exact = copy.deepcopy(vae).float()
    with torch.no_grad():
        assert not vae.decode(latents().half() / 0.18215).sample.isfinite().all()
    pixels = autoencoder.decode(vae, latents())
    assert vae.dtype == torch.float32
    assert torch.equal(pixels, autoencoder.decode(exact, latents()))


def test_what_is_not_a_number_is_never_a_picture(vae):
    with pytest.raises(InvalidModel, match="--no-half"):
        autoencoder.decode(vae, torch.full((1, 4, 8, 8), float("nan")))
    vae.decoder.conv_out.bias.data[0] = float("nan")
    with pytest.raises(InvalidModel, match="VAE"):
        autoencoder.decode(vae, latents())
