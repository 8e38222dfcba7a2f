"""What one batch is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modules.core.plan import Pass, Picture, Plan
from modules.core.result import Watch
from modules.plugin.hooks import Active


@dataclass(frozen=True)
class Work:
    """A batch of pictures within a plan, the plugins that take part, and who watches."""

    plan: Plan
    pictures: tuple[Picture, ...]
    active: Sequence[Active]
    watch: Watch

    @property
    def base(self) -> Pass:
        """The first pass."""
        return self.plan.passes[0]
