import numpy
import pytest
import torch
import torch.nn.functional as F

from modules.training import autoencoder, linear_start, losses
from modules.training.config import AutoencoderConfig
from tests.training.conftest import loop_config

CHANNELS = 4


@pytest.fixture(scope="module")
def pixels(data):
    return autoencoder.draw(data.rgba, 32, 0.5, 0.3, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model():
    """Two halvings: nothing of a 4x4 patch is cut before the latents."""
    torch.manual_seed(0)
    return autoencoder.build(
        AutoencoderConfig(
            loop_config(), block_out_channels=(16, 48, 64), norm_num_groups=4, latent_channels=CHANNELS
        ), 32
    )


@pytest.fixture(scope="module")
def started(model, pixels):
    """The linear reconstruction; ``model`` is set."""
    return linear_start.start_linearly(model, pixels)


def patches(pixels):
    """Rows of 4x4 patches, by numpy alone."""
    n, c, h, w = pixels.shape
    cut = pixels.numpy().reshape(n, c, h // 4, 4, w // 4, 4).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, c * 16).astype(numpy.float64)


def test_latents_are_the_principal_components_of_patches(model, started, pixels):
    rows = patches(pixels)
    directions = numpy.linalg.svd(rows, full_matrices=False)[2][:CHANNELS]
    codes = rows @ directions.T
    with torch.no_grad():
        latents = model.encode(pixels).latent_dist.mean.permute(0, 2, 3, 1).reshape(-1, CHANNELS).double().numpy()
    correlation = numpy.abs(numpy.corrcoef(latents.T, codes.T)[:CHANNELS, CHANNELS:])
    assert numpy.diag(correlation).min() > 0.999


def test_latents_have_no_mean_and_their_spread_is_tempered(model, started, pixels):
    rows = patches(pixels)
    spread = (rows @ numpy.linalg.svd(rows, full_matrices=False)[2][:CHANNELS].T).std(0)
    with torch.no_grad():
        latents = model.encode(pixels).latent_dist.mean
    assert latents.mean((0, 2, 3)).abs().max() < 0.05
    found = latents.std((0, 2, 3)).double().numpy()
    assert found / found[0] == pytest.approx(numpy.sqrt(spread / spread[0]), rel=0.03)


def test_an_untouched_model_reconstructs_about_as_well_as_patch_pca(model, started, pixels):
    rows = patches(pixels)
    directions = numpy.linalg.svd(rows, full_matrices=False)[2][:CHANNELS]
    best = -10 * numpy.log10(((rows @ directions.T @ directions - rows) ** 2).mean() / 4)
    with torch.no_grad():
        output = model(pixels).sample
    found = -10 * ((output - pixels).square().mean() / 4).log10().item()
    assert found > best - 2.5
    fresh = autoencoder.build(AutoencoderConfig(loop_config(), (16, 48, 64), 1, CHANNELS, 4), 32)
    with torch.no_grad():
        assert losses.psnr(fresh(pixels).sample, pixels).mean() < found - 5


def test_the_network_computes_the_linear_reconstruction(model, started, pixels):
    with torch.no_grad():
        output = model(pixels).sample
    assert (output - started).square().mean().sqrt() < 0.05


def test_every_parameter_can_still_learn(model, started, pixels):
    model.zero_grad()
    losses.reconstruction(model(pixels).sample, pixels, False, 0.0).backward()
    moved = [name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().max() > 0]
    residual = [name for name in moved if name.endswith("conv2.weight")]
    assert len(residual) == sum(name.endswith("conv2.weight") for name, _ in model.named_parameters())


def test_the_regression_is_least_squares(source):
    features = torch.randn(3, 2, 6, 6, generator=source)
    conv = torch.nn.Conv2d(5, 4, 3, padding=1)
    true = torch.nn.Conv2d(2, 4, 3, padding=1)
    with torch.no_grad():
        target = true(F.interpolate(features, scale_factor=2))
    made = linear_start.regress(conv, features, target)
    assert torch.allclose(made, target, atol=1e-2)
    noisy = target + 0.3 * torch.randn(target.shape, generator=source)
    made = linear_start.regress(conv, features, noisy)
    columns = F.unfold(F.interpolate(features, scale_factor=2), 3, padding=1).permute(0, 2, 1).flatten(0, 1)
    design = torch.cat([columns, torch.ones(len(columns), 1)], 1).double()
    wanted = noisy.permute(0, 2, 3, 1).flatten(0, 2).double()
    exact = design @ torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    assert torch.allclose(made.permute(0, 2, 3, 1).flatten(0, 2).double(), exact, atol=1e-2)


def test_pairs_lie_apart_and_leave_room_for_constants():
    pairs = linear_start.Pairs(6, 32, 4)
    used = [pairs.plus(n) + k for n in range(6) for k in (0, 1)] + [c + k for c in pairs.constants() for k in (0, 1)]
    assert len(set(used)) == len(used) and max(used) < 32
    with pytest.raises(ValueError, match="cannot hold"):
        linear_start.Pairs(3, 12, 6)


def test_equal_widths_at_the_ends_are_refused(pixels):
    model = autoencoder.build(AutoencoderConfig(loop_config(), (16, 16, 32), 1, 4, 4), 32)
    with pytest.raises(ValueError, match="must differ"):
        linear_start.start_linearly(model, pixels)
