"""What upscalers are told that work inside a generation, and that their tiles are heard of and can be the last."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings, with_values
from modules.engine.engine import Engine
from modules.imaging.resize import RESAMPLERS
from modules.imaging.upscalers import Occasion
from modules.library.files import Library
from modules.library.inputs import Inputs
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.upscaling.upscaler import Shelf
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_x4 import write_tiny_x4


@dataclass
class Tiled:
    """An upscaler of four tiles that keeps what it is told."""

    name: str = "Tiled"
    occasion: Occasion = field(default_factory=Occasion)
    heard: list[Occasion] = field(default_factory=list)
    done: list[int] = field(default_factory=list)

    def told(self, occasion: Occasion) -> Tiled:
        self.heard.append(occasion)
        return dataclasses.replace(self, occasion=occasion)

    def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        for tile in range(5):
            self.occasion.advance(tile, 4)
            self.done.append(tile)
        return image.resize((width, height))


SETTINGS = with_values(Settings(), {"upscaler_for_img2img": "Tiled", "ESRGAN_tile": 64})
PHASES = [f"Upscaling, {percent} %" for percent in (0, 25, 50, 75, 100)]


@pytest.fixture
def tiled() -> Tiled:
    return Tiled()


def requests(library: Library) -> dict[str, Request]:
    stored = Inputs(library.folders.inputs).add(Image.fromarray(np.zeros((32, 32, 3), np.uint8))).id
    request = dataclasses.replace(REQUEST, settings=SETTINGS, steps=1, guidance_scale=1.0)
    return {
        "hires fix": dataclasses.replace(request, enable_hr=True, hr_scale=1.5, hr_upscaler="Tiled", hr_prompt="a hat"),
        "img2img": dataclasses.replace(request, kind="img2img", init_images=(stored,), prompt="a hat"),
    }


def engine_with(library: Library, tiled: Tiled) -> Engine:
    return Engine(library, Models(10**9), Placement(), {**RESAMPLERS, "Tiled": tiled})


@pytest.mark.parametrize("where", ["hires fix", "img2img"])
def test_each_tile_is_a_phase(library: Library, watch: Recorder, tiled: Tiled, where: str) -> None:
    engine_with(library, tiled).generate(requests(library)[where], (), watch)
    assert [phase for phase in watch.phases if "%" in phase] == PHASES
    (heard,) = tiled.heard
    assert (heard.prompt, heard.negative_prompt, heard.seed) == ("a hat", "a dog", REQUEST.seed)
    assert heard.settings.ESRGAN_tile == 64


@pytest.mark.parametrize("where", ["hires fix", "img2img"])
def test_an_interrupt_is_obeyed_after_the_tile_at_work(library: Library, watch: Recorder, tiled: Tiled,
                                                       where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        if watch.phases[-1:] == [PHASES[2]]:
            raise InterruptedError

    monkeypatch.setattr(watch, "check", check)
    with pytest.raises(InterruptedError):
        engine_with(library, tiled).generate(requests(library)[where], (), watch)
    assert tiled.done == [0, 1, 2]


def test_a_diffusion_upscaler_works_for_hires_fix_and_is_no_checkpoint(library: Library, watch: Recorder,
                                                                       tmp_path: Any) -> None:
    from modules.upscaling.diffusion import DiffusionUpscaler

    path = write_tiny_x4(library.folders.checkpoints[0] / "x4 tiny.safetensors")
    try:
        models = Models(10**9)
        file = library.find_checkpoint("x4 tiny")
        upscaler = DiffusionUpscaler("x4 tiny", file, Shelf(models, Placement()))
        engine = Engine(library, models, Placement(), {"x4 tiny": upscaler})
        settings = with_values(Settings(), {"x4_upscaler_steps": 1, "x4_upscaler_tile": 64})
        request = dataclasses.replace(REQUEST, model="tiny.safetensors", steps=1, enable_hr=True, hr_scale=2.0,
                                      hr_upscaler="x4 tiny", settings=settings)
        engine.generate(request, (), watch)
        assert watch.pictures[0].image.size == (128, 128) and watch.phases.count("Upscaling, 100 %") == 0
        with pytest.raises(InvalidRequest, match="x4 tiny.safetensors is an upscaler"):
            engine.generate(dataclasses.replace(request, model="x4 tiny", enable_hr=False), (), watch)
    finally:
        path.unlink()
