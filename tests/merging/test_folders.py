"""Single files as diffusers folders and back: nothing is lost, and diffusers reads what is written."""

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.core.merge import Recipe
from modules.families import detect
from modules.families.clip_tokenizer import clip_tokenizer
from modules.library.headers import read_header
from modules.merging.merge import perform
from modules.merging.models import REST
from modules.runtime.device import Placement
from tests.fixtures.tiny_loras import tiny_lora
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_sd2 import write_tiny_sd2
from tests.fixtures.tiny_sdxl import write_tiny_sdxl
from tests.merging.test_edits import add
from tests.merging.test_merge import Progress

HALF = torch.float16
PIPELINES = {write_tiny_sd1: diffusers.StableDiffusionPipeline, write_tiny_sd2: diffusers.StableDiffusionPipeline,
             write_tiny_sdxl: diffusers.StableDiffusionXLPipeline}


def converted(place, **values):
    recipe = Recipe(**{"model_a": "a", "method": "no_interpolation", "ema": "keep", **values})
    return place.folders.checkpoints[0] / perform(recipe, place, Progress()).result["name"]


def with_rest(path, write):
    """Write a model with what no folder has a place for."""
    tensors = load_file(write(path, dtype=HALF) if write is write_tiny_sd1 else write(path))
    tensors |= {"betas": torch.rand(1000, dtype=torch.float64), "model_ema.diffusion_modelout2weight": torch.rand(4, 2),
                "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize("write", PIPELINES)
def test_there_and_back_is_bit_for_bit_the_same_and_diffusers_reads_it(place, write):
    a = place.folders.checkpoints[0] / "a.safetensors"
    tensors = with_rest(a, write)
    folder = converted(place, name="folder", format="diffusers")
    rest = load_file(folder / REST)
    assert {"betas", "model_ema.num_updates"} <= set(rest) and len(rest) < 20
    found = load_file(converted(place, model_a="folder", name="back"))
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
    pipeline = PIPELINES[write].from_pretrained(folder, local_files_only=True)
    family, variant = detect(read_header(a))
    ours = family.load(variant, str(a), None, Placement())
    assert set(ours.modules) <= set(pipeline.components)
    for part, module in ours.modules.items():
        theirs = {name.removeprefix("text_model."): value
                  for name, value in getattr(pipeline, part).state_dict().items()}
        for name, value in module.named_parameters():
            assert torch.equal(theirs[name].float(), value.float()), (part, name)
    text = "A cat, 2 dogs and a lighthouse"
    for name in ("tokenizer", "tokenizer_2"):
        if name in pipeline.components:
            tokenizer = getattr(pipeline, name)
            assert tokenizer(text).input_ids[1:-1] == clip_tokenizer().encode(text)
            open_clip = name == "tokenizer_2" or write is write_tiny_sd2
            assert tokenizer.pad_token_id == (0 if open_clip else tokenizer.eos_token_id)


def test_a_folder_is_detected_as_its_file_and_takes_its_changes(place):
    a = write_tiny_sd1(place.folders.checkpoints[0] / "a.safetensors", takes="inpaint")
    write_tiny_sd1(place.folders.checkpoints[0] / "b.safetensors", seed=1, takes="inpaint")
    add(place, "style", tiny_lora(a, only="attn1"))
    values = {"method": "weighted_sum", "model_b": "b", "alpha": 0.25, "loras": "<lora:style:2>", "dtype": "float16"}
    folder, file = (converted(place, name=name, format=kind, **values) for name, kind in (
        ("folder", "diffusers"), ("file", "safetensors")))
    was, now = detect(read_header(file))[1], detect(read_header(folder))[1]
    assert (now.family, now.takes, now.prediction, now.default_size, now.latent) == (
        was.family, was.takes, was.prediction, was.default_size, was.latent)
    found, wanted = load_file(converted(place, model_a="folder", name="back")), load_file(file)
    assert set(found) == set(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_diffusers_loads_a_merged_file(place):
    for seed, name in enumerate("ab"):
        write_tiny_sd1(place.folders.checkpoints[0] / f"{name}.safetensors", seed=seed)
    values = {"method": "weighted_sum", "model_b": "b", "alpha": 0.5}
    folder, file = (converted(place, name=name, format=kind, **values) for name, kind in (
        ("folder", "diffusers"), ("file", "safetensors")))
    theirs = diffusers.UNet2DConditionModel.from_single_file(
        str(file), config=str(folder), subfolder="unet", local_files_only=True).state_dict()
    wanted = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(theirs) == set(wanted) and all(torch.equal(theirs[name], wanted[name]) for name in wanted)
