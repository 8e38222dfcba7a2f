"""The loop that every stage runs in: rates, averages, checkpoints, progress; exact to resume.

A step draws all its randomness from a generator seeded with (seed, step), so the state of a run is its weights, its
optimizer's moments, its averages and one number; nothing about data order or generators needs to be stored.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from modules.training import checkpoint
from modules.training.config import LoopConfig
from modules.training.muon import Muon

logger = logging.getLogger(__name__)


class Stage(Protocol):
    """What the loop drives. ``step`` runs one optimizer step and returns what to log, as tensors or numbers."""

    def step(self, number: int) -> dict[str, torch.Tensor]: ...

    def sample(self, number: int) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


def generator(device: torch.device, seed: int, purpose: str, step: int) -> torch.Generator:
    """Return the generator of one step and purpose: independent streams from a hash of all three."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def rate(config: LoopConfig, step: int) -> float:
    """Return the learning rate of ``step``: linear warm-up, constant, linear decay to zero at ``steps``."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = min(1.0, (config.steps - step) / max(1.0, config.decay * config.steps))
    return config.lr * min(rise, max(0.0, fall))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context of a forward pass: bfloat16 autocast where asked for, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class Average:
    """An exponential moving average of the parameters that a module learns, optionally kept on the CPU.

    The decay warms up as (1 + step) / (10 + step), so that a short run is not an average of its start.
    """

    def __init__(self, module: nn.Module, decay: float, device: torch.device | None = None) -> None:
        self.decay = decay
        self.weights = {
            name: value.detach().clone().to(device or value.device)
            for name, value in module.named_parameters() if value.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's weights after ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = dict(module.named_parameters())
        averages = list(self.weights.values())
        values = [current[name].detach().to(average.device) for name, average in self.weights.items()]
        torch._foreach_lerp_(averages, values, 1 - decay)

    @contextmanager
    def lent(self, module: nn.Module) -> Iterator[None]:
        """Put the average in place of the module's weights, in evaluation mode, and put them back afterwards."""
        parameters, training = dict(module.named_parameters()), module.training
        kept = {name: parameters[name].detach().clone() for name in self.weights}
        _copy(self.weights, module)
        module.eval()
        try:
            yield
        finally:
            module.train(training)
            _copy(kept, module)

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Replace the average by stored weights."""
        for name, value in self.weights.items():
            value.copy_(weights[name])


@torch.no_grad()
def _copy(weights: dict[str, torch.Tensor], module: nn.Module) -> None:
    parameters = dict(module.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)


def learned(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that are not frozen."""
    return [value for value in module.parameters() if value.requires_grad]


def learned_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a module without what is frozen."""
    frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def adam(parameters: Iterable[dict[str, Any]], config: LoopConfig) -> torch.optim.AdamW:
    """Return the optimizer of parameter groups; a group's ``scale`` multiplies the learning rate."""
    groups = [{"scale": 1.0, **group} for group in parameters]
    fused = True if groups[0]["params"][0].is_cuda else None  # one kernel instead of hundreds
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)


def muon(parameters: Iterable[dict[str, Any]], config: LoopConfig) -> Muon:
    """Return the optimizer of parameter groups, as ``adam``; those with ``matrix`` are moved by Muon."""
    return Muon([{"scale": 1.0, **group} for group in parameters], config.lr, config.betas, config.weight_decay)


def apply_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


@dataclass(frozen=True)
class Limits:
    """When a run ends before its steps do: after ``seconds``, or as soon as the file ``stop`` exists."""

    seconds: float = float("inf")
    stop: Path | None = None

    def reached(self, elapsed: float) -> bool:
        return elapsed >= self.seconds or (self.stop is not None and self.stop.exists())


def describe(step: int, steps: int, per_step: float, metrics: dict[str, float]) -> str:
    """Return one line of progress with the time that is left."""
    left = int((steps - step) * per_step)
    values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"{step}/{steps}  {values}  {per_step:.3f} s/step  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


def run(
    stage: Stage,
    config: LoopConfig,
    folder: Path,
    limits: Limits = Limits(),  # noqa: B008 - frozen, so shared safely
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Train ``stage`` up to ``config.steps``, resuming from ``folder``; return whether it got there.

    Saves every ``checkpoint_seconds`` and at the end; metrics are read from the device only where they are logged.
    """
    state = checkpoint.newest(folder)
    step = 0
    if state is not None:
        stage.restore(state["stage"])
        step = state["step"]
        logger.info("resumed at step %d", step)
    start = saved = logged = clock()
    logged_step = step

    def save() -> None:
        checkpoint.save(folder, step, {"step": step, "stage": stage.state()})

    while step < config.steps:
        metrics = stage.step(step)
        step += 1
        now = clock()
        if step % config.log_every == 0 or step == config.steps:
            values = {name: float(value) for name, value in metrics.items()}
            now = clock()
            logger.info(describe(step, config.steps, (now - logged) / (step - logged_step), values))
            logged, logged_step = now, step
        if step % config.sample_every == 0:
            before = clock()
            stage.sample(step)
            logged += clock() - before  # no part of a step
        finished = step == config.steps or limits.reached(now - start)
        if finished or now - saved >= config.checkpoint_seconds:
            save()
            saved = clock()
        if finished:
            break
    return step >= config.steps
