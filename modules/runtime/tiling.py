"""Pictures that repeat without a seam: convolutions that take what is beyond an edge from the opposite one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def apply(modules: Mapping[str, Any], tiling: bool) -> None:
    """Make the convolutions of a model's denoiser and autoencoder wrap around (``tiling``) or see zeros outside."""
    for module in (modules[name] for name in ("unet", "vae") if name in modules):
        for layer in _convolutions(module):
            layer.padding_mode = "circular" if tiling else "zeros"


def in_tiles(
    module: torch.nn.Module, run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, margin: int
) -> torch.Tensor:
    """Return ``run(x)`` for an autoencoder ``module`` that works in tiles, [n, channels, height, width] in and out.

    Tiles that wrapped around by themselves would meet in seams. So where ``module`` wraps around, ``margin`` cells of
    the opposite edge are put around ``x``, and their share of the result is cut off.
    """
    if not any(layer.padding_mode == "circular" for layer in _convolutions(module)):
        return run(x)
    margin = min(margin, *x.shape[-2:])
    with _straight(module):
        result = run(torch.nn.functional.pad(x, (margin,) * 4, mode="circular"))
    cut = margin * result.shape[-1] // (x.shape[-1] + 2 * margin)
    return result[..., cut:-cut, cut:-cut]


@contextmanager
def _straight(module: torch.nn.Module) -> Iterator[None]:
    """Have no convolution of ``module`` wrap around for a while."""
    circular = [layer for layer in _convolutions(module) if layer.padding_mode == "circular"]
    for layer in circular:
        layer.padding_mode = "zeros"
    try:
        yield
    finally:
        for layer in circular:
            layer.padding_mode = "circular"


def _convolutions(module: torch.nn.Module) -> list[torch.nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
