"""The starter model that comes with the program, merged with a variant of it: pictures move as the ratio says."""

import dataclasses
from pathlib import Path

import numpy
import pytest

from modules.core.merge import NO_INTERPOLATION, WEIGHTED_SUM, Recipe
from modules.core.request import Request
from modules.engine.engine import Engine
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.merging.merge import perform
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import Recorder
from tests.merging.test_merge import Progress

ROOT = Path(__file__).resolve().parents[2]
STARTER, RED = "darkroom-starter", "<lora:safelight:1>"
REQUEST = Request(prompt="a red apple", seed=1, width=128, height=128, steps=4, guidance_scale=4.0, sampler="DDIM")


@pytest.fixture
def library(tmp_path):
    """The program's models, with a folder for those that are made here."""
    found = Library(folders(ROOT, {"data_dir": str(tmp_path)}), HashCache(tmp_path / "hashes.sqlite3"))
    found.folders.checkpoints[0].mkdir(parents=True)
    return found


@pytest.mark.slow
def test_pictures_move_as_the_ratio_says(library, tmp_path):
    common = Recipe(STARTER, format="diffusers", dtype="float32")
    perform(dataclasses.replace(common, method=NO_INTERPOLATION, loras=RED, name="red"), library, Progress())
    for ratio in (0.25, 0.5):
        merge = dataclasses.replace(common, model_b="red", method=WEIGHTED_SUM, alpha=ratio, name=f"merged {ratio}")
        perform(merge, library, Progress())
    found = discover([ROOT / "extensions"], tmp_path, {"lora": library.folders.lora}, frozenset())
    host = Host(tuple(item for item in found if item.id == "lora"))
    engine = Engine(library, Models(10**9), Placement())

    def drawn(model, tags=""):
        watch, request = Recorder(), dataclasses.replace(REQUEST, model=model, prompt=f"{REQUEST.prompt} {tags}")
        assert not engine.generate(request, host.active(request), watch).warnings
        return numpy.asarray(watch.pictures[0].image, dtype=numpy.float64)

    plain, red = drawn(STARTER), drawn("red")
    quarter, half = drawn("merged 0.25"), drawn("merged 0.5")
    assert numpy.abs(red - drawn(STARTER, RED)).max() <= 2
    assert numpy.abs(half - drawn(STARTER, "<lora:safelight:0.5>")).max() <= 2
    far = [float(numpy.abs(one - plain).mean()) for one in (quarter, half, red)]
    left = [float(numpy.abs(one - red).mean()) for one in (plain, quarter, half)]
    assert 1 < far[0] < far[1] < far[2] and left[0] > left[1] > left[2] > 1
