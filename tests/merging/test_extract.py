"""A LoRA extracted from two checkpoints: with all ranks it makes the second of the first."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.core.errors import Interrupted, InvalidModel, InvalidRequest
from modules.core.lora import LoraExtraction
from modules.core.merge import Recipe
from modules.merging.extract import perform
from modules.merging.merge import perform as merge
from tests.fixtures.tiny_loras import modules
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_sdxl_folder, write_tiny_sdxl
from tests.merging.test_combine import changes
from tests.merging.test_edits import original
from tests.merging.test_merge import Progress


def extracted(place, watch=None, **values):
    work = LoraExtraction(**{"model_a": "a", "model_b": "b", "name": "result", "dtype": "float32", **values})
    outcome = perform(work, place, watch or Progress())
    return place.folders.lora[0] / outcome.result["name"], outcome


def write_pair(place, write, folder=False):
    for seed, name in enumerate("ab"):
        write(place.folders.checkpoints[0] / (name if folder else f"{name}.safetensors"), seed=seed)


def applied(place, **values):
    recipe = Recipe("a", method="no_interpolation", loras="<lora:result:1>", name="applied", **values)
    return place.folders.checkpoints[0] / merge(recipe, place, Progress()).result["name"]


@pytest.mark.parametrize("write", [write_tiny_sd1, write_tiny_sdxl])
def test_with_all_ranks_it_makes_b_of_a(place, write):
    write_pair(place, write)
    _, outcome = extracted(place, rank=4096, conv_rank=4096, exact=True)
    assert outcome.warnings == () and abs(outcome.result["kept"] - 1.0) < 1e-9
    b, found = load_file(place.folders.checkpoints[0] / "b.safetensors"), load_file(applied(place))
    held = [name for name in b if not name.startswith("first_stage_model.") and b[name].is_floating_point()]
    assert len(held) > 200
    for name in held:
        if "logit_scale" not in name:
            assert (found[name] - b[name]).norm() <= 5e-6 * max(b[name].norm(), 1), name


def test_folders_and_files_give_the_same(place):
    write_pair(place, write_tiny_sdxl)
    wanted = load_file(extracted(place, rank=4)[0])
    for seed, name in enumerate("ab"):
        write_sdxl_folder(place.folders.checkpoints[0] / f"{name}-folder", seed=seed)
    found = load_file(extracted(place, rank=4, model_a="a-folder", model_b="b-folder", name="folder")[0])
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), name


def test_each_layer_is_the_best_of_its_rank(place):
    write_pair(place, write_tiny_sd1)
    path, outcome = extracted(place, rank=6, conv_rank=3, text_encoders=False)
    assert "biases, norms and embeddings differ" in outcome.warnings[0]
    a, b = tiny_sd1(0), tiny_sd1(1)
    total = kept = 0.0
    model = place.folders.checkpoints[0] / "a.safetensors"
    found = changes(path, model)
    for where in modules(model).values():
        if where.component != "unet":
            continue
        name = original(where.path, a)
        total += float((b[name] - a[name]).double().square().sum())
        if where.bias:
            total += float((b[f"{name[:-6]}bias"] - a[f"{name[:-6]}bias"]).double().square().sum())
        if where not in found:
            assert len(where.weight) == 1, where
            continue
        change = (b[name] - a[name]).double().flatten(1)
        rank = 3 if len(where.weight) == 4 and where.weight[2] == 3 else 6
        values = torch.linalg.svdvals(change)
        error = (found[where].flatten(1) - change).norm()
        assert error <= 1.001 * values[rank:].norm() + 1e-5, where
        kept += float(values[:rank].square().sum())
    assert abs(outcome.result["kept"] - kept / total) < 1e-3


def test_energy_and_clamp(place):
    write_pair(place, write_tiny_sd1)
    tensors = load_file(extracted(place, rank=60, energy=0.5, text_encoders=False)[0])
    ranks = {len(one) for name, one in tensors.items() if name.endswith("lora_down.weight")}
    assert len(ranks) > 3 and max(ranks) < 60
    plain = load_file(extracted(place, rank=8, name="plain")[0])
    cut = load_file(extracted(place, rank=8, clamp=0.9, name="cut")[0])
    for up in (name for name in plain if name.endswith("lora_up.weight")):
        sides = (up, up.replace("lora_up", "lora_down"))
        before, after = (torch.cat([one[side].flatten() for side in sides]).abs() for one in (plain, cut))
        assert after.max() < before.max() and abs(float((after == after.max()).float().mean()) - 0.1) < 0.01, up


def test_what_does_not_differ_or_go_together_is_refused(place):
    folder = place.folders.checkpoints[0]
    write_pair(place, write_tiny_sd1)
    write_tiny_sdxl(folder / "xl.safetensors")
    write_tiny_sd1(folder / "paint.safetensors", seed=1, takes="inpaint")
    broken = tiny_sd1(1)
    broken["model.diffusion_model.out.2.weight"][0] = float("nan")
    save_file(broken, folder / "broken.safetensors")
    for values, kind, words in (
        ({"model_b": "a"}, InvalidModel, "do not differ"), ({"model_b": "xl"}, InvalidModel, "of one family"),
        ({"model_b": "broken", "conv_rank": 2}, InvalidModel, "NaN"), ({"rank": 0}, InvalidRequest, "Choose a rank"),
        ({"energy": 0.0}, InvalidRequest, "energy"), ({"model_b": ""}, InvalidRequest, "Model B"),
        ({"clamp": 2.0}, InvalidRequest, "clamp"),
    ):
        with pytest.raises(kind, match=words):
            extracted(place, **values)
    with pytest.raises(Interrupted):
        extracted(place, Progress(stop_at=0.3))
    assert not list(place.folders.lora[0].iterdir())
    path, outcome = extracted(place, model_b="paint", rank=2, conv_rank=2)
    assert "1 parameters are not in both models" in outcome.warnings[1]
    assert "lora_unet_conv_in.alpha" not in load_file(path)
