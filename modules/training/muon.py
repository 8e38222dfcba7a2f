"""Muon: steps along the orthogonalised momentum of a weight matrix (Jordan et al. 2024; Liu et al. 2025).

All directions of a matrix move alike, so what is rare among the captions is learned as fast as what is common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
ADAM_RMS = 0.2  # what an AdamW step has times its rate (Liu et al. 2025, section 2.2)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Return [n, rows, columns] with singular values near one (0.7 to 1.2) and the same singular vectors.

    Newton and Schulz's iteration with a quintic that rises steeply at zero (Jordan et al. 2024).
    """
    linear, cubic, quintic = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW that moves the parameters of groups with ``matrix`` by Muon: linear and convolution weights [out, ...].

    A step of either kind has about the same size for the same rate, so one schedule serves both.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], decay: float) -> None:
        super().__init__([{"matrix": False, **group} for group in groups], lr=lr, betas=betas, weight_decay=decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run one step; gradients of matrices are gone afterwards."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group["matrix"]:
                self._move(group)
        super().step()
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros(())  # AdamW looks for it when it is restored
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
            ahead = weight.grad.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov's
            alike.setdefault(ahead.shape, []).append((weight, ahead))
            weight.grad = None  # AdamW passes over it
        for shape, pairs in alike.items():
            size = group["lr"] * ADAM_RMS * max(shape) ** 0.5
            steps = orthogonalise(torch.stack([ahead for _, ahead in pairs]))
            for (weight, _), step in zip(pairs, steps, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step.view(weight.shape), alpha=size)
