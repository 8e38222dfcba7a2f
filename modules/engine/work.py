"""What one batch is made from, and with what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modules.core.plan import Pass, Picture, Plan
from modules.core.result import Watch
from modules.engine.loader import Loader
from modules.engine.preview import Previewer
from modules.imaging.resize import Upscaler
from modules.plugin.hooks import Active


@dataclass(frozen=True)
class Bench:
    """What every batch is made with: models, previews, and the upscalers of pixels by name."""

    loader: Loader
    previewer: Previewer
    upscalers: Mapping[str, Upscaler]


@dataclass(frozen=True)
class Work:
    """A batch of pictures within a plan, the plugins that take part, and who watches."""

    plan: Plan
    pictures: tuple[Picture, ...]
    active: Sequence[Active]
    watch: Watch

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return [picture.seed for picture in self.pictures]

    def said(self, pass_: Pass) -> tuple[Picture, ...]:
        """Return the pictures with the prompts that ``pass_`` says."""
        return tuple(
            dataclasses.replace(picture, prompt=pass_.prompt or picture.prompt,
                                negative_prompt=pass_.negative_prompt or picture.negative_prompt)
            for picture in self.pictures
        )
