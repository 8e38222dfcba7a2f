"""What a model's noise levels mean: its sigma table, its prediction, and how a latent is scaled for it.

A noisy latent is ``alpha(sigma) * x0 + sigma * noise``, with ``alpha`` 1 for epsilon and v prediction (Karras et al.
2022, the variance-exploding form) and ``1 - sigma`` for rectified flow (Liu et al. 2022). Bodies use operators only,
so latents may be tensors or arrays.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Literal, get_args

Prediction = Literal["epsilon", "v_prediction", "flow"]
Published = Literal["sd1", "sdxl"]

FLOW_TIMESTEPS = 1000


@dataclass(frozen=True)
class Space:
    """A model's noise levels and prediction.

    ``sigmas`` ascends strictly, one level per training timestep (1000 for Stable Diffusion), all above 0 and for
    ``flow`` at most 1. Raises ``ValueError`` where it does not. ``published`` names the model for which schedules
    were optimised and published that fit this one. ``stride`` is how many training timesteps lie from one level to
    the next.
    """

    sigmas: tuple[float, ...]
    prediction: Prediction = "epsilon"
    published: Published = "sd1"
    stride: int = 1

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ValueError(f"prediction {self.prediction!r} is none of {', '.join(get_args(Prediction))}")
        if len(self.sigmas) < 2 or self.sigmas[0] <= 0 or not math.isfinite(self.sigmas[-1]):
            raise ValueError("a space needs at least two finite sigmas above 0")
        if any(low >= high for low, high in itertools.pairwise(self.sigmas)):
            raise ValueError("the sigmas of a space must ascend strictly")
        if self.prediction == "flow" and self.sigmas[-1] > 1:
            raise ValueError("the sigmas of a flow space end at 1")

    @property
    def sigma_min(self) -> float:
        """The lowest level of the table."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        """The highest level of the table."""
        return self.sigmas[-1]

    @property
    def alphas_cumprod(self) -> tuple[float, ...]:
        """The share of the signal's variance at each timestep, ``alpha^2 / (alpha^2 + sigma^2)``, descending."""
        return tuple(self.signal_variance(sigma) for sigma in self.sigmas)

    def alpha(self, sigma: float) -> float:
        """Return the factor of the clean latent at noise level ``sigma``."""
        return 1.0 - sigma if self.prediction == "flow" else 1.0

    def signal_variance(self, sigma: float) -> float:
        """Return ``alpha^2 / (alpha^2 + sigma^2)``, which is DDPM's cumulative alpha."""
        alpha = self.alpha(sigma)
        return alpha * alpha / (alpha * alpha + sigma * sigma)

    def half_log_snr(self, sigma: float) -> float:
        """Return lambda = log(alpha / sigma) (Lu et al. 2022, DPM-Solver); -inf at pure noise, inf at sigma 0."""
        alpha = self.alpha(sigma)
        if sigma <= 0:
            return math.inf
        return math.log(alpha / sigma) if alpha > 0 else -math.inf

    def norm(self, sigma: float) -> float:
        """Return ``sqrt(alpha^2 + sigma^2)``, by which a noisy latent is divided to be variance preserving."""
        return math.hypot(self.alpha(sigma), sigma)

    def sigma_of(self, half_log_snr: float) -> float:
        """Return the noise level whose lambda is ``half_log_snr``; the inverse of ``half_log_snr``."""
        if self.prediction == "flow":
            return 1.0 / (1.0 + math.exp(half_log_snr))
        return math.exp(-half_log_snr)

    def sigma_to_t(self, sigma: float) -> float:
        """Return the place of ``sigma`` in the table, 0 to len - 1, log-linear between levels, clamped at both ends.

        k-diffusion's ``DiscreteSchedule.sigma_to_t`` without quantisation.
        """
        if sigma <= self.sigmas[0]:
            return 0.0
        low = min(bisect_right(self.sigmas, sigma) - 1, len(self.sigmas) - 2)
        below, above = math.log(self.sigmas[low]), math.log(self.sigmas[low + 1])
        return low + min((math.log(sigma) - below) / (above - below), 1.0)

    def t_to_sigma(self, t: float) -> float:
        """Return the noise level at place ``t`` of the table, log-linear between levels, clamped at both ends.

        The inverse of ``sigma_to_t`` within the table.
        """
        t = min(max(t, 0.0), len(self.sigmas) - 1.0)
        low = int(t)
        if low == t:
            return self.sigmas[low]
        weight = t - low
        return math.exp((1 - weight) * math.log(self.sigmas[low]) + weight * math.log(self.sigmas[low + 1]))

    def timestep(self, sigma: float) -> float:
        """Return what the network is told about ``sigma``: its place in the table, or 1000 sigma for flow.

        Of a thinned table it is the training timestep of the nearest level.
        """
        if self.prediction == "flow":
            return sigma * FLOW_TIMESTEPS
        if self.stride == 1:
            return self.sigma_to_t(sigma)
        return math.floor(self.sigma_to_t(sigma) + 0.5) * self.stride + self.stride - 1.0

    def thinned(self, stride: int) -> Space:
        """Return this space with every ``stride``-th level of its table alone, the highest among them."""
        kept = self.sigmas[(len(self.sigmas) - 1) % stride :: stride]
        return dataclasses.replace(self, sigmas=kept, stride=self.stride * stride)

    def add_noise(self, x0: Any, noise: Any, sigma: float) -> Any:
        """Return the noisy latent ``alpha(sigma) * x0 + sigma * noise``; same shape and type as its inputs."""
        return x0 * self.alpha(sigma) + noise * sigma

    def scale_input(self, x: Any, sigma: float) -> Any:
        """Return the noisy latent ``x`` as the network expects it (unit variance; unchanged for flow)."""
        if self.prediction == "flow":
            return x
        return x * (1.0 / math.sqrt(sigma * sigma + 1.0))

    def denoised(self, x: Any, output: Any, sigma: float) -> Any:
        """Return the clean latent that the network's raw ``output`` for the noisy latent ``x`` stands for.

        ``c_skip * x + c_out * output``, with k-diffusion's coefficients for epsilon (DiscreteEpsDDPMDenoiser) and v
        (DiscreteVDDPMDenoiser; Salimans and Ho 2022), and ``x - sigma * output`` for flow.
        """
        if self.prediction == "v_prediction":
            variance = sigma * sigma + 1.0
            return x * (1.0 / variance) - output * (sigma / math.sqrt(variance))
        return x - output * sigma

    def output(self, x: Any, x0: Any, sigma: float) -> Any:
        """Return what the network predicts for ``x`` if ``x0`` is clean; the inverse of ``denoised`` above sigma 0."""
        if self.prediction == "v_prediction":
            variance = sigma * sigma + 1.0
            return (x * (1.0 / variance) - x0) * (math.sqrt(variance) / sigma)
        return (x - x0) * (1.0 / sigma)


def space_from_betas(
    schedule: str = "scaled_linear",
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    timesteps: int = 1000,
    prediction: Prediction = "epsilon",
    published: Published = "sd1",
) -> Space:
    """Return the space of a DDPM noise schedule; the defaults are Stable Diffusion's.

    ``schedule`` is ``scaled_linear`` (the square roots of the betas are evenly spaced) or ``linear``. Computed in
    float64. Raises ``ValueError`` for another schedule.
    """
    if schedule == "scaled_linear":
        betas = [root * root for root in _evenly(math.sqrt(beta_start), math.sqrt(beta_end), timesteps)]
    elif schedule == "linear":
        betas = _evenly(beta_start, beta_end, timesteps)
    else:
        raise ValueError(f"beta schedule {schedule!r} is neither scaled_linear nor linear")
    return space_from_alphas_cumprod(tuple(itertools.accumulate((1.0 - beta for beta in betas), float.__mul__)),
                                     prediction, published)


def space_from_alphas_cumprod(
    alphas_cumprod: tuple[float, ...], prediction: Prediction = "epsilon", published: Published = "sd1"
) -> Space:
    """Return the space of a DDPM table of cumulative alphas: descending, each within 0 to 1, exclusive."""
    return Space(tuple(math.sqrt((1.0 - share) / share) for share in alphas_cumprod), prediction, published)


def flow_space(shift: float = 1.0, timesteps: int = FLOW_TIMESTEPS) -> Space:
    """Return the space of a rectified flow whose times are moved toward noise by ``shift``, 1 for none.

    ``sigma = shift t / (1 + (shift - 1) t)`` at t = 1/n ... 1 (Esser et al. 2024, equation 23).
    """
    times = [(index + 1) / timesteps for index in range(timesteps)]
    return Space(tuple(shift * t / (1.0 + (shift - 1.0) * t) for t in times), "flow")


def _evenly(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * index / (count - 1) for index in range(count)]
