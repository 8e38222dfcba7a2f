"""Merges tried out on a loaded model, against the same merge saved, loaded and asked for the same picture."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import InvalidModel, InvalidRequest
from modules.core.merge import Recipe
from modules.core.plan import ModelRef
from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.headers import read_header
from modules.merging.merge import perform
from modules.merging.preview import Previews
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_sd2 import write_tiny_sd2
from tests.fixtures.tiny_sdxl import write_sdxl_folder, write_tiny_sdxl
from tests.merging.test_merge import Progress

ASKED = dataclasses.replace(REQUEST, steps=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("previews")
    library = Library(folders(root, {}, {}), HashCache(root / "hashes.sqlite3"))
    folder = library.folders.checkpoints[0]
    for seed, name in enumerate("abc"):
        write_tiny_sd1(folder / f"{name}.safetensors", seed=seed)
        write_tiny_sd1(folder / f"half-{name}.safetensors", seed=seed, dtype=torch.float16)
    library.folders.lora[0].mkdir(parents=True)
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    width = read_header(folder / "a.safetensors").tensors[
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v.weight"].shape
    generator = torch.Generator().manual_seed(5)
    save_file({f"{module}.lora_down.weight": torch.randn(4, width[1], generator=generator),
               f"{module}.lora_up.weight": torch.randn(width[0], 4, generator=generator)},
              library.folders.lora[0] / "amber.safetensors")
    return library


@pytest.fixture(scope="module")
def engine(place):
    return Engine(place, Models(10**10), Placement(), merges=Previews(place))


def picture(engine, **values):
    watch = Recorder()
    engine.generate(dataclasses.replace(ASKED, **values), (), watch)
    return np.asarray(watch.pictures[0].image, dtype=np.int16), watch.pictures[0].parameters


def difference(one, other):
    return int(np.abs(one - other).max())


def loaded(engine, place, name):
    path = place.find_checkpoint(name).path
    return engine._bench.loader.load(ModelRef(path), lambda phase: None, Settings()).model


def digest(model):
    digest = hashlib.sha256()
    for _, module in sorted(model.modules.items()):
        for _, value in sorted(module.state_dict().items()):
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def saved(place, recipe):
    return perform(dataclasses.replace(recipe, name=f"saved-{abs(hash(recipe))}"), place, Progress()).result["name"]


RECIPES = {
    "weighted": Recipe("a", "b", alpha=0.3),
    "half": Recipe("half-a", "half-b", alpha=0.7),
    "blocks": Recipe("a", "b", block_alpha="0, 1, 0.5, 0, 0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0, 0, 0, 1, 1",
                     rules="vae::0.4"),
    "add difference": Recipe("a", "b", "c", "add_difference", 0.6),
    "cosine": Recipe("a", "b", method="cosine_a", alpha=0.2),
    "dare": Recipe("a", "b", "c", "dare", 0.5, 0.5, seed=3),
    "lora": Recipe("a", method="no_interpolation", loras="<lora:amber:0.8>"),
    "converted": Recipe("a", method="no_interpolation", dtype="float16"),
}


QUICK = ("blocks", "lora")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
                                  for name in RECIPES])
def test_the_picture_is_that_of_the_merge_saved(engine, place, name):
    recipe = RECIPES[name]
    tried, entries = picture(engine, merge=dataclasses.replace(recipe, name="tried"))
    plain, _ = picture(engine, model=recipe.model_a)
    again, _ = picture(engine, model=saved(place, recipe))
    assert difference(tried, again) <= 1
    assert difference(tried, plain) > (8 if name != "converted" else -1)
    assert entries["Model"] == "tried" and "Model hash" not in entries and recipe.method in entries["Merge preview"]


@pytest.mark.parametrize("ratio, model", [(0.0, "a"), (1.0, "b")])
def test_the_ends_of_a_weighted_sum_are_its_models(engine, ratio, model):
    tried, _ = picture(engine, merge=Recipe("a", "b", alpha=ratio))
    assert difference(tried, picture(engine, model=model)[0]) == 0


@pytest.mark.parametrize("values", [{"dtype": "float16"}, {"loras": "<lora:amber:0.8>"}], ids=["converted", "lora"])
def test_one_end_after_the_other_is_that_of_its_own_model(engine, values):
    ends = [picture(engine, merge=Recipe("a", "b", alpha=ratio, **values))[0] for ratio in (0.0, 1.0)]
    for tried, model in zip(ends, "ab", strict=True):
        alone, _ = picture(engine, merge=Recipe(model, method="no_interpolation", **values))
        assert difference(tried, alone) <= 1
    assert difference(*ends) > 8


def test_the_plain_model_is_as_it_was_bit_by_bit(engine, place):
    picture(engine, model="a")
    before = digest(loaded(engine, place, "a"))
    picture(engine, merge=Recipe("a", "b", alpha=0.5))
    assert digest(loaded(engine, place, "a")) != before
    picture(engine, model="a")
    assert digest(loaded(engine, place, "a")) == before


def test_only_what_the_sliders_change_is_made_anew(engine, place):
    weights = ["0"] * 18
    picture(engine, merge=Recipe("a", "b", block_alpha=",".join([*weights[:9], "0.5", *weights[10:]])))
    model = loaded(engine, place, "a")
    kept = {name: value for name, value in model.modules["unet"].named_parameters() if name.startswith("mid_block")}
    assert {place for place in model.applied.originals} == {("unet", name) for name in kept}
    picture(engine, merge=Recipe("a", "b", block_alpha=",".join([*weights[:9], "0.5", "0.5", *weights[11:]])))
    assert all(dict(model.modules["unet"].named_parameters())[name] is value for name, value in kept.items())
    assert len(model.applied.originals) > len(kept)


@pytest.mark.slow
@pytest.mark.parametrize("write, layouts", [
    (write_tiny_sd1, {"safetensors": "x.safetensors", "diffusers": "x"}),
    (write_tiny_sd2, {"safetensors": "x.safetensors", "diffusers": "x"}),
], ids=["sd1", "sd2"])
@pytest.mark.parametrize("first", ["safetensors", "diffusers"])
def test_folders_and_files_of_each_family_are_tried_out(tmp_path, write, layouts, first):
    library = Library(folders(tmp_path, {}, {}), HashCache(tmp_path / "hashes.sqlite3"))
    folder = library.folders.checkpoints[0]
    write(folder / f"a{layouts[first][1:]}", first, seed=0)
    write(folder / "b.safetensors", "safetensors", seed=1)
    assert_same_picture(library, Recipe("a", "b", alpha=0.4, format=first))


@pytest.mark.slow
@pytest.mark.parametrize("first", ["safetensors", "diffusers"])
def test_sdxl_is_tried_out(tmp_path, first):
    library = Library(folders(tmp_path, {}, {}), HashCache(tmp_path / "hashes.sqlite3"))
    folder = library.folders.checkpoints[0]
    if first == "diffusers":
        write_sdxl_folder(folder / "a", seed=0)
    else:
        write_tiny_sdxl(folder / "a.safetensors", seed=0)
    write_tiny_sdxl(folder / "b.safetensors", seed=1)
    assert_same_picture(library, Recipe("a", "b", alpha=0.4, format=first))


def assert_same_picture(library, recipe):
    engine = Engine(library, Models(10**10), Placement(), merges=Previews(library))
    tried, _ = picture(engine, merge=recipe)
    plain, _ = picture(engine, model="a")
    assert difference(tried, picture(engine, model=saved(library, recipe))[0]) <= 1
    assert difference(tried, plain) > 8


def test_an_inpainting_model_keeps_what_sees_the_mask(tmp_path):
    library = Library(folders(tmp_path, {}, {}), HashCache(tmp_path / "hashes.sqlite3"))
    folder = library.folders.checkpoints[0]
    write_tiny_sd1(folder / "a.safetensors", seed=0, takes="inpaint")
    write_tiny_sd1(folder / "b.safetensors", seed=1)
    assert_same_picture(library, Recipe("a", "b", alpha=0.5))


def test_what_cannot_be_merged_is_said_and_the_next_request_works(engine, place):
    write_tiny_sdxl(place.folders.checkpoints[0] / "xl.safetensors")
    with pytest.raises(InvalidModel, match="xl"):
        picture(engine, merge=Recipe("a", "xl"))
    with pytest.raises(InvalidRequest, match="Block weights"):
        picture(engine, merge=Recipe("a", "b", block_alpha="1, 2, 3"))
    assert difference(picture(engine, model="b")[0], picture(engine, merge=Recipe("a", "b", alpha=1.0))[0]) == 0


def test_without_a_merger_it_is_refused(place):
    with pytest.raises(InvalidRequest, match="tried out"):
        picture(Engine(place, Models(10**9), Placement()), merge=Recipe("a", "b"))
