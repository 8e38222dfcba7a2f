"""LoRAs merged into a checkpoint: the formula in float64, and the very weights that a picture is made with."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.adapters.fitting import fit
from modules.adapters.reading import read_network
from modules.core.errors import InvalidModel, InvalidRequest, NotFound
from modules.core.merge import Recipe
from modules.families import detect
from modules.families.places import places
from modules.library.headers import read_header, read_metadata
from modules.merging.merge import perform
from modules.runtime import patches
from modules.runtime.device import Placement
from tests.fixtures.tiny_loras import ALPHA, RANK, modules, tiny_lora
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_sdxl_folder, write_tiny_sdxl
from tests.merging.test_merge import Progress

HALF = torch.float16


def add(place, name, tensors, **metadata):
    save_file(tensors, place.folders.lora[0] / f"{name}.safetensors", metadata)


def merged(place, **values):
    recipe = Recipe(**{"model_a": "a", "method": "no_interpolation", "name": "result", **values})
    outcome = perform(recipe, place, Progress())
    return place.folders.checkpoints[0] / outcome.result["name"], outcome


def of_float64(lora, key, scale):
    up, down = (lora[f"{key}.lora_{side}.weight"].double() for side in ("up", "down"))
    return torch.einsum("or,r...->o...", up.flatten(1), down) * (scale * ALPHA / RANK)


@pytest.mark.parametrize("dtype", [torch.float32, HALF, torch.bfloat16])
def test_the_sum_of_several_is_that_of_float64_rounded(place, dtype):
    a = place.folders.checkpoints[0] / "a.safetensors"
    write_tiny_sd1(a, dtype=dtype)
    loras = [tiny_lora(a, seed) for seed in (1, 2)]
    for name, tensors in zip(("one", "two"), loras, strict=True):
        add(place, name, tensors)
    path, outcome = merged(place, loras="<lora:one:0.7:0.4>\n<lora:two:-1.5>")
    found, before, changed = load_file(path), load_file(a), 0
    assert outcome.warnings == ()
    for key, module in modules(a).items():
        if f"{key}.alpha" not in loras[0]:
            continue
        name = f"cond_stage_model.transformer.text_model.{module.path}.weight"
        scale = 0.7
        if module.component == "unet":
            name, scale = original(module.path, before), 0.4
        wanted = before[name].double() + of_float64(loras[0], key, scale) + of_float64(loras[1], key, -1.5)
        torch.testing.assert_close(found[name], wanted.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)
        changed += 1
    assert changed > 100
    same = [name for name in before if torch.equal(before[name], found[name])]
    assert len(same) == len(before) - changed and any("first_stage" in name for name in same)


def original(path, tensors):
    from modules.families import ldm

    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = ldm.unet_config(ldm.under(shapes, ldm.UNET_PREFIX))
    return ldm.UNET_PREFIX + ldm.rename(f"{path}.weight", ldm.unet_modules(config))


@pytest.mark.parametrize("write, kind", [(write_tiny_sd1, "lora"), (write_tiny_sd1, "full"),
                                         (write_tiny_sdxl, "loha"), (write_sdxl_folder, "dora")])
def test_the_weights_are_those_of_a_picture(place, write, kind):
    folder = place.folders.checkpoints[0]
    a = folder / ("a" if write is write_sdxl_folder else "a.safetensors")
    write(a)
    add(place, "style", of_kind(a, kind))
    path, outcome = merged(place, loras="<lora:style:0.6:0.8>",
                           format="diffusers" if write is write_sdxl_folder else "safetensors")
    assert outcome.warnings == ()
    header = read_header(a)
    family, variant = detect(header)
    patched, fused = (family.load(detect(read_header(one))[1], str(one), None, Placement()) for one in (a, path))
    changes = fit(read_network(place.folders.lora[0] / "style.safetensors"), places(header, variant), "style")
    patches.apply(patched, [patch for change in changes.fitting
                            for patch in change.patches(0.8 if change.place.component == "unet" else 0.6)])
    assert len(changes.fitting) > 50 and {change.place.component for change in changes.fitting} == {
        name for name in patched.modules if name != "vae"}
    for part, module in patched.modules.items():
        for name, value in module.named_parameters():
            torch.testing.assert_close(fused.modules[part].get_parameter(name), value, rtol=2e-6, atol=2e-7)
    assert any(not torch.equal(value, family.load(variant, str(a), None, Placement()).modules["unet"].get_parameter(
        name)) for name, value in fused.modules["unet"].named_parameters())


def of_kind(path, kind):
    lora = tiny_lora(path, seed=5)
    if kind == "lora":
        return lora
    generator, tensors = torch.Generator().manual_seed(7), {}
    for name, module in modules(path).items():
        if f"{name}.alpha" not in lora:
            continue
        out, inner = module.weight[0], torch.Size(module.weight[1:]).numel()
        if kind == "full":
            tensors[f"{name}.diff"] = torch.randn(module.weight, generator=generator) * 0.1
            if module.bias:
                tensors[f"{name}.diff_b"] = torch.randn(module.bias, generator=generator) * 0.1
        elif kind == "dora":
            size = (1, inner) if len(module.weight) == 2 else (1, module.weight[1], 1, 1)
            tensors[f"{name}.dora_scale"] = torch.rand(size, generator=generator) + 0.5
        else:
            for number in "12":
                tensors[f"{name}.hada_w{number}_a"] = torch.randn(out, RANK, generator=generator) * 0.3
                tensors[f"{name}.hada_w{number}_b"] = torch.randn(RANK, inner, generator=generator) * 0.3
    return (lora | tensors) if kind == "dora" else tensors


def test_they_are_added_to_what_was_merged(place):
    folder = place.folders.checkpoints[0]
    for seed, name in enumerate("ab"):
        write_tiny_sd1(folder / f"{name}.safetensors", seed=seed)
    lora = tiny_lora(folder / "a.safetensors", only="mid_block_attentions_0_proj_in")
    add(place, "style", lora)
    path, _ = merged(place, method="weighted_sum", model_b="b", alpha=0.25, loras="<lora:style:2>")
    name = "model.diffusion_model.middle_block.1.proj_in.weight"
    wanted = tiny_sd1(0)[name].double() * 0.75 + tiny_sd1(1)[name].double() * 0.25 + of_float64(
        lora, "lora_unet_mid_block_attentions_0_proj_in", 2.0)
    torch.testing.assert_close(load_file(path)[name].double(), wanted, rtol=1e-6, atol=1e-7)


def test_block_weights_and_ranks_count_as_in_a_prompt(place):
    a = place.folders.checkpoints[0] / "a.safetensors"
    write_tiny_sd1(a)
    lora = tiny_lora(a)
    add(place, "style", lora)
    found, before = load_file(merged(place, loras="<lora:style:1:dyn=1:lbw=OUTALL>")[0]), tiny_sd1(0)
    changed = {name.split(".")[2] for name in before
               if "diffusion_model" in name and not torch.equal(before[name], found[name])}
    assert changed == {"output_blocks", "out"}
    up, down = (lora[f"lora_unet_conv_out.lora_{side}.weight"] for side in ("up", "down"))
    name = "model.diffusion_model.out.2.weight"
    wanted = before[name] + torch.einsum("or,r...->o...", up[:, :1].flatten(1), down[:1]) * (ALPHA / RANK)
    torch.testing.assert_close(found[name], wanted)


def test_the_recipe_names_them_with_their_hashes(place):
    a = place.folders.checkpoints[0] / "a.safetensors"
    write_tiny_sd1(a)
    add(place, "style", tiny_lora(a, only="mid_block"), ss_output_name="trained")
    path, outcome = merged(place, loras="<lora:trained:0.5>", name="")
    assert outcome.result["name"] == "a + trained.safetensors"
    told = read_metadata(read_header(path))
    assert json.loads(told["darkroom_merge_recipe"])["loras"] == "<lora:trained:0.5>"
    assert json.loads(told["darkroom_merge_loras"]) == {
        "style.safetensors": place.hashes.addnet(place.folders.lora[0] / "style.safetensors")}


def test_what_does_not_fit_is_refused_and_leaves_nothing(place):
    folder = place.folders.checkpoints[0]
    write_tiny_sd1(folder / "a.safetensors")
    write_tiny_sdxl(folder / "xl.safetensors")
    add(place, "xl", tiny_lora(folder / "xl.safetensors"))
    broken = tiny_lora(folder / "a.safetensors", only="mid_block")
    add(place, "partly", broken | {"lora_unet_nowhere.lora_up.weight": torch.ones(2, 2),
                                   "lora_unet_nowhere.lora_down.weight": torch.ones(2, 2)})
    broken[next(iter(broken))][0] = float("nan")
    add(place, "broken", broken)
    before = sorted(path.name for path in folder.iterdir())
    for text, kind, words in (
        ("<lora:xl:1>", InvalidModel, "does not fit a"), ("<lora:gone:1>", NotFound, "no lora named 'gone'"),
        ("<lora:broken:1>", InvalidModel, "NaN"), ("style", InvalidRequest, "as in a prompt"),
        ("<lora:xl:1:start=3>", InvalidRequest, "no steps"), ("<lora:xl:x>", InvalidRequest, "no number"),
        ("<lora:partly:1e5>", InvalidRequest, "out of range"),
    ):
        with pytest.raises(kind, match=words):
            merged(place, loras=text)
    assert sorted(path.name for path in folder.iterdir()) == before
    _, outcome = merged(place, loras="<lora:partly:1>")
    assert outcome.warnings == (
        "partly.safetensors: 1 modules do not fit the model and were left out (lora_unet_nowhere).",)
