"""The LoRA and the embedding that come with the starter model are there, are listed, and show what they are for."""

import dataclasses
from pathlib import Path

import numpy
import pytest
import torch

from modules.core.request import Request
from modules.engine.engine import Engine
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import EMBEDDING, LORA, Library, folders
from modules.library.hashes import HashCache
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.training.evaluation import off_palette
from modules.training.styles import BLUEPRINT, SAFELIGHT
from tests.engine.conftest import Recorder

ROOT = Path(__file__).resolve().parents[2]
FILES = {LORA: ROOT / "models/Lora/darkroom-starter/safelight.safetensors",
         EMBEDDING: ROOT / "embeddings/darkroom-starter/starter-blueprint.safetensors"}
ELSEWHERE = ("data_dir", "models_dir", "lora_dir", "embeddings_dir")
REQUEST = Request(prompt="", model="darkroom-starter", seed=1, width=128, height=128, steps=8, guidance_scale=4.0,
                  sampler="DDIM")


def library(folder, flags):
    return Library(folders(ROOT, flags), HashCache(folder / "hashes.sqlite3"))


@pytest.mark.parametrize("kind", FILES)
def test_they_are_small_and_say_their_licence(kind):
    assert FILES[kind].stat().st_size < 1_000_000
    assert "MIT" in (FILES[kind].parent / "LICENSE.md").read_text("utf-8")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("given", [(), *((flag,) for flag in ELSEWHERE), ELSEWHERE])
def test_they_are_listed_once_whatever_the_folders(kind, given, tmp_path):
    found = library(tmp_path, dict.fromkeys(given, str(tmp_path))).files(kind)
    assert [Path(file.path) for file in found if Path(file.path).name == FILES[kind].name] == [FILES[kind]]


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """Return a function from prompts to pictures [n, 3, 128, 128] in -1..1, with plugins as they come."""
    folder = tmp_path_factory.mktemp("cache")
    places = folders(ROOT, {})
    found = discover([ROOT / "extensions"], folder, {"lora": places.lora, "embeddings": places.embeddings}, frozenset())
    host = Host(tuple(item for item in found if item.id in ("lora", "textual_inversion")))
    engine = Engine(library(folder, {}), Models(10**9), Placement())

    def draw(*prompts):
        watch = Recorder()
        for prompt in prompts:
            request = dataclasses.replace(REQUEST, prompt=prompt)
            assert not engine.generate(request, host.active(request), watch).warnings
        pictures = numpy.stack([numpy.asarray(picture.image) for picture in watch.pictures])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    return draw


def test_the_lora_brings_red_on_black(draw):
    plain, half, full = draw("a red apple", "a red apple <lora:safelight:0.5>", "a red apple <lora:safelight:1>")
    far, nearer, near = off_palette(torch.stack([plain, half, full]), SAFELIGHT).tolist()
    assert near < 0.35 * far and near < nearer < far
    assert full.mean() < plain.mean() - 0.5


def test_the_embedding_brings_white_on_blue(draw):
    plain, word = draw("a red apple", "a red apple, starter-blueprint")
    far, near = off_palette(torch.stack([plain, word]), BLUEPRINT).tolist()
    assert near < 0.5 * far
    red, _, blue = word[:, :8, :8].mean((1, 2))
    assert blue > red + 0.3
