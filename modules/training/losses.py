"""Losses of the two stages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def gradients(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the horizontal and vertical differences of neighbouring pixels."""
    return pixels.diff(dim=-1), pixels.diff(dim=-2)


def reconstruction(output: torch.Tensor, target: torch.Tensor, absolute: bool, gradient_weight: float) -> torch.Tensor:
    """Return the mean squared error, or the mean absolute error with that of the gradients (sharper edges)."""
    if not absolute:
        return F.mse_loss(output, target)
    edges = sum(F.l1_loss(a, b) for a, b in zip(gradients(output), gradients(target), strict=True))
    return F.l1_loss(output, target) + gradient_weight * edges


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return the mean over elements of KL(N(mean, exp(log_variance)) || N(0, 1)) (Kingma and Welling 2014, eq. 10)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def psnr(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB of each picture [n, 3, h, w] in -1..1, the output clamped."""
    error = (output.clamp(-1, 1) - target).square().mean((1, 2, 3)) / 4
    return -10 * error.clamp_min(1e-12).log10()


class PatchDiscriminator(nn.Sequential):
    """The 70x70 PatchGAN (Isola et al. 2017) with group norm: a logit per patch, no batch statistics."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for layer in range(1, layers + 1):
            out = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            blocks += [nn.Conv2d(channels, out, 4, stride, 1), nn.GroupNorm(8, out), nn.LeakyReLU(0.2)]
            channels = out
        super().__init__(*blocks, nn.Conv2d(channels, 1, 4, 1, 1))


def hinge(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return the discriminator's hinge loss (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(fit: torch.Tensor, fooled: torch.Tensor, last: nn.Parameter) -> torch.Tensor:
    """Return the ratio, in 0..1e4, of the gradient norms at the ``last`` layer (VQGAN, Esser et al. 2021, eq. 7).

    ``fit`` is the reconstruction loss, ``fooled`` the adversarial one.
    """
    wanted = torch.autograd.grad(fit, last, retain_graph=True)[0].norm()
    given = torch.autograd.grad(fooled, last, retain_graph=True)[0].norm()
    return (wanted / (given + 1e-6)).clamp(0, 1e4).detach()


def snr_weight(snr: torch.Tensor, floor: float, ceiling: float, prediction: str) -> torch.Tensor:
    """Return the weight of each step for a squared error of the network's output, so that of x0 is weighed by the SNR
    clamped to ``floor`` and ``ceiling``.

    The ceiling is min-SNR (Hang et al. 2023, section 3.4): little noise, little weight. The floor is the truncated SNR
    of Salimans and Ho (2022, section 4): at high noise only the caption says what to draw, which must be learned too.
    An epsilon error is snr times an x0 error, a v error snr + 1 times.
    """
    wanted = snr.clamp(floor, ceiling)
    return wanted / (snr + 1) if prediction == "v_prediction" else wanted / snr.clamp_min(1e-8)
