import copy

import pytest
import torch

from modules.core.errors import InvalidModel
from modules.families import autoencoder
from modules.runtime.device import Placement
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


def pixels(height=64, width=64, pictures=1):
    coarse = torch.rand(pictures, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def test_pictures_are_decoded_and_encoded_as_if_alone(vae):
    two = torch.cat([latents(), -latents()])
    assert torch.equal(autoencoder.decode(vae, two)[1:], autoencoder.decode(vae, two[1:]))
    both = pixels(pictures=2)
    assert torch.equal(autoencoder.encode(vae, both)[1:], autoencoder.encode(vae, both[1:]))


def test_a_sample_is_the_posteriors_mean_and_deviation_times_the_generators_noise(vae):
    with torch.no_grad():
        posterior = vae.encode(pixels() * 2 - 1).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(4))
    expected = (posterior.mean + posterior.std * noise) * vae.config.scaling_factor
    ours = autoencoder.encode(vae, pixels(), torch.Generator().manual_seed(4))
    torch.testing.assert_close(ours, expected)


def test_large_pictures_are_encoded_in_tiles(vae, monkeypatch):
    from modules.runtime import device
    large = pixels(320, 384)
    whole, tiled = autoencoder.encode(vae, large), autoencoder.encode(vae, large, tiled=True)
    assert tiled.shape == whole.shape == (1, 4, 40, 48) and not torch.equal(tiled, whole)
    assert not vae.use_tiling
    # Far from the seams, only the statistics of the group norms differ.
    assert (tiled - whole)[..., :8, :8].abs().mean() < 0.2 * whole[..., :8, :8].abs().mean()
    monkeypatch.setattr(device, "available", lambda _: 10**6)
    assert torch.equal(autoencoder.encode(vae, large), tiled)


def test_an_overflow_while_encoding_is_repaired_with_the_same_sample(vae):
    vae.encoder.conv_in.weight.data *= 50_000
    vae.half()
    exact = copy.deepcopy(vae).float()
    with torch.no_grad():
        assert not vae.encode(pixels().half()).latent_dist.mean.isfinite().all()
    ours = autoencoder.encode(vae, pixels(), torch.Generator().manual_seed(4))
    assert vae.dtype == torch.float32
    assert torch.equal(ours, autoencoder.encode(exact, pixels(), torch.Generator().manual_seed(4)))


def test_infinity_is_not_taken_for_white(vae):
    vae.decoder.conv_out.bias.data[:] = float("inf")
    with pytest.raises(InvalidModel, match="VAE"):
        autoencoder.decode(vae, latents())


def test_only_half_precision_of_too_small_a_range_is_widened():
    half, brain, full = torch.float16, torch.bfloat16, torch.float32
    for placement, expected in (
        (Placement(vae=half, wide=brain), brain), (Placement(vae=half), full), (Placement(vae=full, wide=brain), full),
        (Placement(vae=brain, wide=full), brain),
    ):
        widened = autoencoder.wide_range(placement)
        assert widened.vae == expected and widened.denoiser == placement.denoiser
