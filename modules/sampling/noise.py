"""Noise, one stream per picture, so that a picture's noise is the same alone and in any batch.

Sources are ``CPU`` (torch's generator on the CPU), ``NV`` (what an NVIDIA card makes, computed anywhere) and ``GPU``
(the device's own generator, carried out as ``NV`` where there is none). Seeds are taken modulo 2^64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modules.sampling.brownian import BrownianPath
from modules.sampling.philox import philox_normal

Shape = tuple[int, int, int]
NoiseSource = Callable[[float, float], Tensor]

SEEDS = 2**64
GENERATOR_DEVICES = ("cuda", "xpu")
COLLINEAR = 0.9995


@dataclass
class Stream:
    """The endless unit normal numbers of one seed; every call of ``normal`` continues where the last one ended."""

    seed: int
    source: str = "CPU"
    device: torch.device | str = "cpu"
    _calls: int = field(default=0, init=False)
    _generator: torch.Generator | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        own = self.source == "GPU" and torch.device(self.device).type in GENERATOR_DEVICES
        if own or self.source == "CPU":
            device = self.device if own else "cpu"
            self._generator = torch.Generator(device).manual_seed(self.seed % SEEDS)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return the next float32 numbers of the stream, on the CPU."""
        self._calls += 1
        if self._generator is None:
            return torch.from_numpy(philox_normal(shape, self.seed % SEEDS, self._calls - 1))
        return torch.randn(shape, generator=self._generator, device=self._generator.device).cpu()


def picture_noise(
    shape: Shape,
    seeds: Sequence[int],
    *,
    subseeds: Sequence[int] = (),
    subseed_strength: float = 0.0,
    seed_resize_from: tuple[int, int] | None = None,
    source: str = "CPU",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the noise that pictures start from: unit normal float32 [len(seeds), *shape] on ``device``.

    ``shape`` is a latent's (channels, height, width). ``subseed_strength`` (0 to 1) leads from the noise of the seed
    to that of the subseed (0 where missing) along a sphere; ``seed_resize_from`` (height, width, in latent cells)
    puts the noise of a picture of that size into the middle. As in A1111, bit for bit.
    """
    padded = [*subseeds, *[0] * (len(seeds) - len(subseeds))]
    inner = shape if not seed_resize_from or min(seed_resize_from) <= 0 else (shape[0], *seed_resize_from)

    def one(seed: int, subseed: int) -> Tensor:
        noise = Stream(seed, source, device).normal(inner)
        if subseed_strength != 0:
            noise = slerp(subseed_strength, noise, Stream(subseed, source, device).normal(inner))
        return noise if inner == shape else _centred(noise, Stream(seed, source, device).normal(shape))

    return torch.stack([one(*pair) for pair in zip(seeds, padded, strict=False)]).to(device)


def sequential_noise(
    shape: Shape, seeds: Sequence[int], *, source: str = "CPU", device: torch.device | str = "cpu", seed_delta: int = 0
) -> NoiseSource:
    """Return the source of noise for ancestral samplers, float32 [len(seeds), *shape] on ``device`` at every call.

    Each picture's stream continues after its first noise or, with ``seed_delta`` (ENSD), begins anew at the seed
    plus it.
    """
    streams = [Stream(seed + seed_delta, source, device) for seed in seeds]
    if not seed_delta:
        for stream in streams:
            stream.normal(shape)

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.stack([stream.normal(shape) for stream in streams]).to(device)

    return noise


def brownian_noise(
    shape: Shape,
    seeds: Sequence[int],
    sigma_range: tuple[float, float],
    *,
    source: str = "CPU",
    device: torch.device | str = "cpu",
) -> NoiseSource:
    """Return the source of noise for SDE samplers: the normalised increments of one Brownian path per picture.

    ``sigma_range`` is the lowest level above 0 and the highest of the run. ``noise(sigma, sigma_next)`` is the path
    from one level to the next over the square root of their distance, float32 [len(seeds), *shape] on ``device``;
    it does not depend on which levels were asked for before. k-diffusion's ``BrownianTreeNoiseSampler``.
    """
    start, end = (_single(sigma) for sigma in sigma_range)

    def path(seed: int) -> BrownianPath:
        return BrownianPath(start, end, seed % SEEDS, lambda node: Stream(node, source, device).normal(shape))

    paths = [path(seed) for seed in seeds]

    def noise(sigma: float, sigma_next: float) -> Tensor:
        now, then = _single(sigma), _single(sigma_next)
        sign = 1.0 if now < then else -1.0
        increments = torch.stack([path.increment(min(now, then), max(now, then)) for path in paths]) * sign
        return (increments / torch.tensor(then - now).abs().sqrt()).to(device)

    return noise


def slerp(share: float, low: Tensor, high: Tensor) -> Tensor:
    """Return the spherical interpolation from ``low`` to ``high`` [channels, height, width], by columns of dim 1.

    Noise that is all but collinear is mixed linearly, with the share of the two exchanged, as A1111 does.
    """
    dot = (low / torch.norm(low, dim=1, keepdim=True) * (high / torch.norm(high, dim=1, keepdim=True))).sum(1)
    if dot.mean() > COLLINEAR:
        return low * share + high * (1 - share)
    omega = torch.acos(dot)
    sine = torch.sin(omega)
    weight_low, weight_high = torch.sin((1.0 - share) * omega) / sine, torch.sin(share * omega) / sine
    return weight_low.unsqueeze(1) * low + weight_high.unsqueeze(1) * high


def _centred(inner: Tensor, outer: Tensor) -> Tensor:
    """``outer`` with the middle of ``inner`` in its middle, whichever is the larger in each direction."""
    rows, inner_rows = _overlap(outer.shape[1], inner.shape[1])
    columns, inner_columns = _overlap(outer.shape[2], inner.shape[2])
    result = outer.clone()
    result[:, rows, columns] = inner[:, inner_rows, inner_columns]
    return result


def _overlap(outer: int, inner: int) -> tuple[slice, slice]:
    """Halves are rounded down, also below 0, and the overlap shortened by twice as much, as A1111 does."""
    margin = (outer - inner) // 2
    length = inner if margin >= 0 else inner + 2 * margin
    return slice(max(margin, 0), max(margin, 0) + length), slice(max(-margin, 0), max(-margin, 0) + length)


def _single(sigma: float) -> float:
    """``sigma`` in single precision, in which the levels of A1111's schedules are."""
    return float(torch.tensor(sigma, dtype=torch.float32))
