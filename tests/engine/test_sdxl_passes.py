"""SDXL, its refiner and hires fix: whole requests on tiny models, against diffusers' pipelines."""

from __future__ import annotations

import dataclasses
from typing import Any

import diffusers
import pytest
import torch

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.engine.engine import Engine
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import Context, Plugin
from modules.plugin.hooks import Active
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.sampling.noise import picture_noise
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_sdxl import BASE, REFINER, write_sdxl_folder

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ASKED = dataclasses.replace(REQUEST, model="base", steps=10, schedule="Uniform", guidance_scale=5.0)


class Seen(Plugin):
    """Keeps what the denoiser is told about sizes, and the last estimate, which at sigma 0 is the result."""

    id = "seen"

    def __init__(self) -> None:
        super().__init__(Context(None, None, {}))  # type: ignore[arg-type]
        self.micro: list[list[list[float]]] = []
        self.last: Any = None

    def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
        def run(inputs: Any) -> Any:
            self.micro.append(inputs.added["micro"].tolist())
            return call(inputs)
        return run

    def on_step(self, state: Any, params: Any) -> None:
        self.last = state.x0


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Library:
    root = tmp_path_factory.mktemp("installation")
    models = root / "models/Stable-diffusion"
    write_sdxl_folder(models / "base", BASE)
    write_sdxl_folder(models / "refiner", REFINER)
    write_tiny_sd1(models / "sd1.safetensors")
    return Library(folders(root, {}), HashCache(root / "hashes.sqlite3"))


@pytest.fixture(scope="module")
def engine(installation: Library) -> Engine:
    return Engine(installation, Models(10**9), Placement())


def made(engine: Engine, request: Request) -> Seen:
    seen = Seen()
    engine.generate(request, (Active(seen, Plugin.Params()),), Recorder())
    return seen


def pipeline(kind: Any, installation: Library, name: str) -> Any:
    found = kind.from_pretrained(installation.find_checkpoint(name).path, local_files_only=True)
    found.scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace")
    found.set_progress_bar_config(disable=True)
    return found


def test_base_and_refiner_are_diffusers_ensemble_of_experts(engine: Engine, installation: Library) -> None:
    """Its first model ends, too, before the timestep 1000 - 0.6 * 1000."""
    asked = {"prompt": ASKED.prompt, "negative_prompt": ASKED.negative_prompt, "guidance_scale": 5.0,
             "num_inference_steps": 10, "output_type": "latent"}
    base = pipeline(diffusers.StableDiffusionXLPipeline, installation, "base")
    half = base(**asked, height=64, width=64, denoising_end=0.6, latents=picture_noise((4, 8, 8), [ASKED.seed])).images
    refiner = pipeline(diffusers.StableDiffusionXLImg2ImgPipeline, installation, "refiner")
    theirs = refiner(**asked, image=half, denoising_start=0.6, original_size=(64, 64), target_size=(64, 64)).images
    seen = made(engine, dataclasses.replace(ASKED, refiner="refiner", refiner_switch_at=0.6))
    assert torch.linalg.norm(seen.last - theirs) <= 1e-4 * torch.linalg.norm(theirs)
    size = [64.0, 64.0, 0.0, 0.0]
    assert seen.micro == [[[*size, 64.0, 64.0]] * 2] * 6 + [[[*size, 6.0], [*size, 2.5]]] * 4


def test_the_second_pass_is_told_the_size_before_the_margins_are_cut_off(engine: Engine) -> None:
    request = dataclasses.replace(ASKED, steps=1, width=64, height=96, enable_hr=True, hr_resize_x=96, hr_resize_y=96)
    seen = made(engine, request)
    assert [numbers[0] for numbers in seen.micro] == [[96.0, 64.0, 0.0, 0.0, 96.0, 64.0],
                                                      [144.0, 96.0, 0.0, 0.0, 144.0, 96.0]]
    assert seen.last.shape == (1, 4, 12, 12)


@pytest.mark.parametrize(("values", "said"), [
    ({"model": "refiner"}, "refiner is a refiner"),
    ({"model": "sd1", "refiner": "refiner"}, "refiner cannot go on with the latents of sd1.safetensors"),
    ({"enable_hr": True, "hr_checkpoint": "sd1"}, "sd1.safetensors cannot go on with the latents of base"),
])
def test_what_cannot_be_combined_is_refused_and_the_next_request_works(
    engine: Engine, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        engine.generate(dataclasses.replace(ASKED, **values), (), Recorder())
    watch = Recorder()
    engine.generate(dataclasses.replace(ASKED, steps=1), (), watch)
    assert len(watch.pictures) == 1


def test_through_pixels_another_family_may_go_on(engine: Engine) -> None:
    watch = Recorder()
    request = dataclasses.replace(ASKED, model="sd1", steps=1, enable_hr=True, hr_scale=1.5, hr_checkpoint="base",
                                  hr_upscaler="Nearest")
    engine.generate(request, (), watch)
    assert watch.pictures[0].image.size == (96, 96)
