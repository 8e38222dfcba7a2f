"""LoRAs merged with each other: applied at 1, the result changes what all of them change together."""

import json

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modules.adapters.fitting import fit
from modules.adapters.formulas import weight_change
from modules.adapters.reading import read_network
from modules.core.errors import Interrupted, InvalidModel, InvalidRequest, NotFound
from modules.core.lora import LoraMerge
from modules.families import detect
from modules.families.places import places
from modules.library.headers import read_header
from modules.merging.combine import perform
from tests.fixtures.tiny_loras import ALPHA, RANK, modules, tiny_lora
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_tiny_sdxl
from tests.merging.test_edits import add, of_kind
from tests.merging.test_merge import Progress

MIDDLE = "mid_block"


@pytest.fixture
def model(place):
    return write_tiny_sd1(place.folders.checkpoints[0] / "a.safetensors")


def merged(place, watch=None, **values):
    outcome = perform(LoraMerge(**{"model": "a", "name": "result", "dtype": "float32", **values}), place,
                      watch or Progress())
    return place.folders.lora[0] / outcome.result["name"], outcome


def changes(path, model, kind="weight"):
    """Return what a file changes about each module of the model, in float64, weights drawn."""
    header = read_header(model)
    found = fit(read_network(path), places(header, detect(header)[1]), "x")
    assert not found.foreign and not found.unread
    weights = {}
    for change in found.fitting:
        if kind in change.deltas():
            shape = getattr(change.place, kind)
            weight = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
            weights[change.place] = change.deltas()[kind](weight)
    return weights


def total(place, model, weights, kind="weight"):
    found = {}
    for name, text_encoder, denoiser in weights:
        for where, change in changes(place.folders.lora[0] / f"{name}.safetensors", model, kind).items():
            scale = denoiser if where.component == "unet" else text_encoder
            found[where] = found.get(where, 0) + scale * change
    return {where: change for where, change in found.items() if bool(change.any())}


def check(found, wanted, tolerance):
    assert found.keys() == wanted.keys() and wanted
    for where, change in wanted.items():
        assert (found[where] - change).norm() <= tolerance * change.norm(), where


def test_ranks_add_up_and_the_sum_is_exact(place, model):
    add(place, "one", tiny_lora(model, 1))
    add(place, "two", tiny_lora(model, 2, rank=3))
    path, outcome = merged(place, loras="<lora:one:0.7:0.4> <lora:two:-1.5>")
    check(changes(path, model), total(place, model, [("one", 0.7, 0.4), ("two", -1.5, -1.5)]), 1e-6)
    tensors = load_file(path)
    assert outcome.warnings == () and set(tensors) == set(tiny_lora(model))
    down = tensors["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"]
    assert down.shape[0] == 5 == tensors["lora_unet_mid_block_attentions_0_proj_in.alpha"]
    half, _ = merged(place, loras="<lora:one:0.7:0.4> <lora:two:-1.5>", name="half", dtype="float16")
    check(changes(half, model), changes(path, model), 2e-3)


def test_a_rank_is_the_best_that_there_is(place, model):
    add(place, "one", tiny_lora(model, 1, only=MIDDLE, rank=6))
    add(place, "two", tiny_lora(model, 2, only=MIDDLE, rank=6))
    path, _ = merged(place, loras="<lora:one:1><lora:two:0.5>", rank=4)
    found, wanted = changes(path, model), total(place, model, [("one", 1, 1), ("two", 0.5, 0.5)])
    for where, change in wanted.items():
        values = torch.linalg.svdvals(change.flatten(1))
        error = (found[where] - change).norm()
        assert abs(error - values[4:].norm()) <= 1e-5 * values.norm()
    tensors = load_file(path)
    assert {len(one) for name, one in tensors.items() if name.endswith("lora_down.weight")} == {4}


def test_more_ranks_than_a_layer_has_are_not_written(place, model):
    key = "lora_unet_conv_out"
    for seed in (1, 2):
        add(place, f"l{seed}", tiny_lora(model, seed, rank=3, only=key))
    path, _ = merged(place, loras="<lora:l1:1><lora:l2:1>")
    assert len(load_file(path)[f"{key}.lora_down.weight"]) == 4
    check(changes(path, model), total(place, model, [("l1", 1, 1), ("l2", 1, 1)]), 1e-6)


@pytest.mark.parametrize("kind", ["loha", "full"])
def test_what_is_no_lora_becomes_a_full_difference_or_a_lora_of_a_rank(place, model, kind):
    other = {name: one for name, one in of_kind(model, kind).items() if MIDDLE in name}
    norm = {"lora_unet_mid_block_resnets_0_norm1.w_norm": torch.randn(64),
            "lora_unet_mid_block_resnets_0_norm1.b_norm": torch.randn(64)}
    add(place, "one", tiny_lora(model, 1, only=MIDDLE))
    add(place, "two", other | norm)
    path, _ = merged(place, loras="<lora:one:1><lora:two:0.5>")
    sums = [("one", 1, 1), ("two", 0.5, 0.5)]
    check(changes(path, model), total(place, model, sums), 1e-6)
    check(changes(path, model, "bias"), total(place, model, sums, "bias"), 1e-6)
    ranked, _ = merged(place, loras="<lora:one:1><lora:two:0.5>", rank=64, name="ranked")
    check(changes(ranked, model), total(place, model, sums), 1e-5)
    tensors = load_file(ranked)
    assert not any(name.endswith(".diff") for name in tensors) and sum(name.endswith("_norm") for name in tensors) == 2


def test_tucker_and_other_names_are_put_together(place, model):
    plain = tiny_lora(model, 1, only="mid_block_resnets_0_conv1")
    key = "lora_unet_mid_block_resnets_0_conv1"
    core = {f"{key}.lora_up.weight": torch.randn(64, 2, 1, 1), f"{key}.lora_mid.weight": torch.randn(2, 2, 3, 3),
            f"{key}.lora_down.weight": torch.randn(2, 64, 1, 1), f"{key}.alpha": torch.tensor(1.0)}
    add(place, "plain", plain)
    add(place, "core", {name.replace("mid_block_resnets_0_conv1", "middle_block_0_in_layers_2"): one
                        for name, one in core.items()})
    path, _ = merged(place, loras="<lora:plain:1><lora:core:2>")
    check(changes(path, model), total(place, model, [("plain", 1, 1), ("core", 2, 2)]), 1e-6)
    assert len(load_file(path)[f"{key}.lora_down.weight"]) == 4


def test_peft_makes_the_same_of_it(place, model):
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    loras = [tiny_lora(model, seed, only=key) for seed in (1, 2)]
    for name, tensors in zip("ab", loras, strict=True):
        add(place, name, tensors)
    tensors = load_file(merged(place, loras="<lora:a:0.5><lora:b:-2>")[0])
    net = torch.nn.ModuleDict({"to_q": torch.nn.Linear(64, 64, bias=False)})
    before = net["to_q"].weight.detach().clone()
    wrapped = peft.PeftModel(net, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q"]), "one")
    wrapped.add_adapter("two", peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q"]))
    for name, one in zip(("one", "two"), loras, strict=True):
        net["to_q"].lora_A[name].weight.data = one[f"{key}.lora_down.weight"].clone()
        net["to_q"].lora_B[name].weight.data = one[f"{key}.lora_up.weight"].clone()
    wrapped.add_weighted_adapter(["one", "two"], [0.5, 2.0], "both", combination_type="cat")
    # PEFT takes no weights below 0 there, so that the second is turned round first.
    net["to_q"].lora_B["both"].weight.data[:, RANK:] *= -1
    wrapped.set_adapter("both")
    theirs = wrapped.merge_and_unload()["to_q"].weight - before
    parts = {name.removeprefix(f"{key}."): one for name, one in tensors.items()}
    torch.testing.assert_close(weight_change(parts)(before), theirs.detach(), atol=1e-6, rtol=1e-5)


def test_the_file_says_what_it_is(place, model):
    write_tiny_sdxl(place.folders.checkpoints[0] / "xl.safetensors")
    add(place, "one", tiny_lora(place.folders.checkpoints[0] / "xl.safetensors", only="attn1_to_q") | {
        "bundle_emb.word.clip_l": torch.randn(1, 64)})
    path, outcome = merged(place, loras="<lora:one:1> <lora:one:0.5>", model="xl", name="", rank=RANK)
    assert outcome.result["name"] == "one + one.safetensors"
    with safe_open(path, "pt") as file:
        told, names = file.metadata(), list(file.keys())
    assert all(name.startswith(("lora_unet_", "bundle_emb.word.clip_l")) for name in names)
    assert any(name.startswith("lora_unet_input_blocks_") for name in names)
    assert told["ss_base_model_version"] == "sdxl_base_v1-0" and told["ss_network_dim"] == str(RANK)
    assert told["sshs_model_hash"] == place.hashes.addnet(path) and told["ss_output_name"] == path.stem
    assert json.loads(told["darkroom_lora_recipe"])["loras"] == "<lora:one:1> <lora:one:0.5>"
    assert list(json.loads(told["darkroom_lora_sources"])) == ["one.safetensors"]


def test_what_cannot_be_leaves_nothing(place, model):
    write_tiny_sdxl(place.folders.checkpoints[0] / "xl.safetensors")
    large = tiny_lora(model, only=MIDDLE)
    large[next(iter(large))][0] = 1e9
    save_file(large, place.folders.lora[0] / "large.safetensors")
    add(place, "one", tiny_lora(model))
    before = sorted(path.name for path in place.folders.lora[0].iterdir())
    for values, kind, words in (
        ({"loras": ""}, InvalidRequest, "No LoRAs"), ({"loras": "<lora:none:1>"}, NotFound, "none"),
        ({"model": "xl"}, InvalidModel, "does not fit xl"), ({"name": "one"}, InvalidRequest, "already"),
        ({"loras": "<lora:large:1>", "dtype": "float16"}, InvalidModel, "bfloat16"),
        ({"loras": "<lora:one:0>"}, InvalidModel, "Nothing remains"), ({"rank": -1}, InvalidRequest, "rank"),
        ({"dtype": "float8"}, InvalidRequest, "dtype"), ({"name": "a/b"}, InvalidRequest, "file's name"),
    ):
        with pytest.raises(kind, match=words):
            merged(place, **{"loras": "<lora:one:1>", **values})
    with pytest.raises(Interrupted):
        merged(place, Progress(stop_at=0.5), loras="<lora:one:1>")
    assert sorted(path.name for path in place.folders.lora[0].iterdir()) == before
    assert modules(model)
