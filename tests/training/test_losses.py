import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from modules.training import losses


def test_divergence_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    wanted = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    assert torch.allclose(losses.divergence(mean, log_variance), wanted)


def test_psnr_is_its_formula_on_the_range_of_two():
    target = torch.zeros(2, 3, 4, 4)
    output = target + torch.tensor([0.02, 0.2]).view(2, 1, 1, 1)
    assert losses.psnr(output, target).tolist() == pytest.approx([40.0, 20.0], abs=1e-4)
    assert losses.psnr(target + 5, target)[0] == pytest.approx(-10 * math.log10(1 / 4), abs=1e-4)


def test_reconstruction_switches_from_squared_to_absolute():
    output, target = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    assert losses.reconstruction(output, target, False, 1.0) == 0.25
    assert losses.reconstruction(output, target, True, 1.0) == 0.5  # flat: no gradients
    target[..., 2:] = 1.0
    edge = 0.5 * 4 * 3 / (3 * 4 * 3)
    assert losses.reconstruction(output, target, True, 2.0) == pytest.approx(0.75 + 2 * edge)


def test_the_discriminator_judges_patches_of_seventy_pixels():
    judge = losses.PatchDiscriminator(width=8)
    assert judge(torch.randn(1, 3, 64, 64)).shape == (1, 1, 6, 6)
    linear = torch.nn.Sequential(*(layer for layer in judge if isinstance(layer, torch.nn.Conv2d)))
    pixels = torch.zeros(1, 3, 128, 128, requires_grad=True)  # without norms, which see the whole picture
    linear(pixels)[0, 0, 7, 7].backward()
    reached = pixels.grad.abs().sum((0, 1)).nonzero()
    assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [70, 70]


def test_hinge_loss_by_hand():
    assert losses.hinge(torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])) == pytest.approx(0.5 * (0.5 + 1.0))


def test_the_adaptive_weight_balances_gradients_at_the_last_layer():
    last = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    weight = losses.adaptive_weight((3 * last).sum(), (0.5 * last).sum(), last)
    assert weight == pytest.approx(6.0, rel=1e-4)
    assert losses.adaptive_weight((3 * last).sum(), (0 * last).sum(), last) == 1e4


@pytest.mark.parametrize("snr", [0.01, 0.5, 1.0, 3.0, 5.0, 400.0])
def test_the_error_of_x0_has_the_same_weight_whatever_the_network_predicts(snr, source):
    """Computed from the errors themselves, through the definitions of epsilon and v."""
    signal, sigma = math.sqrt(snr / (1 + snr)), math.sqrt(1 / (1 + snr))
    clean, guess, grain = torch.randn(3, 50, generator=source, dtype=torch.float64)
    noisy = signal * clean + sigma * grain
    guessed_grain = (noisy - signal * guess) / sigma
    ratio = torch.tensor([snr], dtype=torch.float64)
    wanted = min(max(snr, 1.0), 5.0) * (clean - guess).square().mean()
    on_epsilon = (grain - guessed_grain).square().mean()
    on_v = ((signal * grain - sigma * clean) - (signal * guessed_grain - sigma * guess)).square().mean()
    assert torch.allclose(losses.snr_weight(ratio, 1.0, 5.0, "epsilon") * on_epsilon, wanted)
    assert torch.allclose(losses.snr_weight(ratio, 1.0, 5.0, "v_prediction") * on_v, wanted)


def test_pure_noise_still_counts():
    assert losses.snr_weight(torch.zeros(1), 1.0, 5.0, "v_prediction").item() == 1.0
    assert losses.snr_weight(torch.zeros(1), 0.0, 5.0, "v_prediction").item() == 0.0
