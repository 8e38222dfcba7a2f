"""The plugin in its place: found by the host, asked for as A1111's clients do, carried out on a tiny model."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.plan import SoftBlend
from modules.core.request import Request
from modules.engine.engine import Engine
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library
from modules.library.inputs import Inputs
from modules.plugin import Plan, Plugin
from modules.plugin.hooks import Active
from modules.web.api.asked import script_arguments
from tests.engine.conftest import REQUEST, Recorder, engine, library

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
SIZE, BOX = (128, 128), (88, 88, 120, 120)
__all__ = ["engine", "library"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    found = discover([EXTENSIONS], tmp_path_factory.mktemp("data"), {}, frozenset())
    return Host(tuple(item for item in found if item.id == "soft_inpainting"))


@pytest.fixture
def request_(library: Library) -> Request:
    def put(image: Image.Image) -> str:
        file = io.BytesIO()
        image.save(file, "PNG")
        return Inputs(library.folders.inputs).put(file.getvalue()).id

    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = Image.new("L", SIZE)
    mask.paste(255, BOX)
    return dataclasses.replace(
        REQUEST, kind="img2img", width=128, height=128, init_images=(put(Image.fromarray(picture)),), mask=put(mask),
        mask_blur_x=4, mask_blur_y=4, denoising_strength=0.9)


class Looking(Plugin):
    """Keeps the plan that the engine carries out."""

    id = "looking"

    def on_plan(self, plan: Plan, params: Any) -> None:
        self.plan = plan


def made(engine: Engine, host: Host, request: Request, **values: Any) -> tuple[np.ndarray, Any, Plan]:
    request = dataclasses.replace(request, plugins={"soft_inpainting": values})
    watch, looking = Recorder(), Looking(host.found[0].plugin.context)
    engine.generate(request, (*host.active(request), Active(looking, looking.Params())), watch)
    (picture,) = watch.pictures
    return np.asarray(picture.image, dtype=np.int16), picture.parameters, looking.plan


def test_it_changes_how_the_mask_is_blended_and_keeps_what_is_far_from_it(
    engine: Engine, host: Host, request_: Request, library: Library
) -> None:
    assert not host.failures()
    plain, without, plan = made(engine, host, request_)
    assert plan.passes[0].start.soft is None and "Soft inpainting enabled" not in without
    soft, entries, plan = made(engine, host, request_, enabled=True, preservation=1.0)
    assert plan.passes[0].start.soft == SoftBlend(preservation=1.0)
    assert {name: value for name, value in entries.items() if name.startswith("Soft inpainting ")} == {
        "Soft inpainting enabled": "True", "Soft inpainting schedule bias": "1.0",
        "Soft inpainting preservation strength": "1.0", "Soft inpainting transition contrast boost": "4.0",
        "Soft inpainting mask influence": "0.0", "Soft inpainting difference threshold": "0.5",
        "Soft inpainting difference contrast": "2.0"}
    assert np.abs(soft - plain)[96:112, 96:112].max() > 0
    original = np.asarray(Inputs(library.folders.inputs).open(request_.init_images[0]), dtype=np.int16)
    assert np.array_equal(soft[:16], original[:16]) and np.abs(soft - original)[96:112, 96:112].max() > 0


@pytest.mark.parametrize("values", [{"sampler": "DDIM"}, {"inpaint_full_res": True}, {"inpainting_fill": 2}])
def test_it_goes_with_timesteps_a_part_and_other_content(
    engine: Engine, host: Host, request_: Request, values: dict[str, Any]
) -> None:
    request = dataclasses.replace(request_, **values)
    plain, soft = made(engine, host, request)[0], made(engine, host, request, enabled=True)[0]
    assert soft.shape == plain.shape and np.abs(soft - plain).max() > 0


def test_a_high_threshold_shows_nothing_of_what_was_made(
    engine: Engine, host: Host, request_: Request, library: Library
) -> None:
    original = np.asarray(Inputs(library.folders.inputs).open(request_.init_images[0]), dtype=np.int16)
    found = made(engine, host, request_, enabled=True, threshold=8.0, contrast=8.0, preservation=8.0)[0]
    assert np.abs(found - original).mean() < np.abs(made(engine, host, request_, enabled=True)[0] - original).mean()


def test_differential_diffusion_is_something_else(engine: Engine, host: Host, request_: Request) -> None:
    with pytest.raises(InvalidRequest, match="exclude each other"):
        made(engine, host, dataclasses.replace(request_, inpaint_mode="differential"), enabled=True)


def test_without_pictures_nothing_changes(engine: Engine, host: Host) -> None:
    plain, soft = made(engine, host, REQUEST)[0], made(engine, host, REQUEST, enabled=True)[0]
    assert np.array_equal(plain, soft)


def test_arguments_are_in_a1111s_order(host: Host) -> None:
    plugin = host.found[0].plugin
    assert plugin is not None and plugin.name == "Soft Inpainting"
    given = script_arguments(plugin.name, {"args": [True, 1.5, 0.75, 6, 0.1, 0.25, 3]}, plugin.Params)
    assert given == {"enabled": True, "bias": 1.5, "preservation": 0.75, "boost": 6, "influence": 0.1,
                     "threshold": 0.25, "contrast": 3}
