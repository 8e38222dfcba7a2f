"""Merges from files to a file."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modules.core.errors import DiskFull, Interrupted, InvalidModel, InvalidRequest
from modules.core.merge import Recipe
from modules.core.merge_metadata import read_recipe
from modules.families import detect
from modules.library.headers import read_header, read_metadata
from modules.merging import writer
from modules.merging.merge import perform
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_sdxl_folder, write_tiny_sdxl

HALF = torch.float16


def write_tiny_sd1_folder(path, seed=0):
    return write_tiny_sd1(path, "diffusers", seed=seed)


class Progress:
    """A ``Watch`` that remembers how far it came, and can stop there."""

    def __init__(self, stop_at=2.0):
        self.share, self.stop_at = 0.0, stop_at

    def check(self):
        if self.share >= self.stop_at:
            raise Interrupted("stopped")

    def step(self, done, total):
        self.share = done / total

    def batch(self, first, pictures):
        pass

    def phase(self, text):
        pass


@pytest.fixture
def models(place):
    folder = place.folders.checkpoints[0]
    for seed, name in enumerate("abc"):
        write_tiny_sd1(folder / f"{name}.safetensors", seed=seed, dtype=HALF)
    return place


def merged(place, watch=None, **values):
    recipe = Recipe(**{"model_a": "a", "model_b": "b", "model_c": "c", "name": "result", **values})
    outcome = perform(recipe, place, watch or Progress())
    return place.folders.checkpoints[0] / outcome.result["name"], outcome


def files(place):
    return sorted(path.name for path in place.folders.checkpoints[0].iterdir())


def test_a_weighted_sum_is_that_of_float64_rounded(models):
    watch = Progress()
    path, outcome = merged(models, watch, alpha=0.3)
    a, b, found = tiny_sd1(0, HALF), tiny_sd1(1, HALF), load_file(path)
    assert set(found) == set(a) and outcome.warnings == () and abs(watch.share - 1.0) < 0.01
    for name, tensor in found.items():
        if tensor.is_floating_point():
            wanted = (a[name].double() * 0.7 + b[name].double() * 0.3).half()
            assert tensor.dtype == HALF
            torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-7)
        else:
            assert torch.equal(tensor, a[name])
    assert models.find_checkpoint(outcome.result["sha256"]).name == "result.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, HALF, torch.bfloat16])
@pytest.mark.parametrize("alpha, seed", [(0.0, 0), (1.0, 1)])
def test_at_the_ends_it_is_a_or_b_bit_for_bit(place, alpha, seed, dtype):
    folder = place.folders.checkpoints[0]
    for number, name in enumerate("ab"):
        tensors = tiny_sd1(number, dtype)
        tensors["model.diffusion_model.out.0.bias"].fill_(-0.0)
        save_file(tensors, folder / f"{name}.safetensors")
    path, _ = merged(place, alpha=alpha)
    wanted = load_file(folder / f"{'ab'[seed]}.safetensors")
    for name, tensor in load_file(path).items():
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), wanted[name].reshape(-1).view(torch.uint8)), name


def test_block_weights_and_rules_decide_by_tensor(models):
    path, _ = merged(models, alpha=0.0, block_alpha=",".join(["1"] + ["0"] * 17), rules="vae::1\nOUT:attn2:1")
    a, b, found = tiny_sd1(0, HALF), tiny_sd1(1, HALF), load_file(path)
    for name in found:
        of_b = name.startswith(("cond_stage", "first_stage")) or ("output_blocks" in name and "attn2" in name)
        assert torch.equal(found[name], (b if of_b else a)[name]), name


def test_folders_and_files_merge_alike(place):
    folder = place.folders.checkpoints[0]
    for seed, name in enumerate("ab"):
        write_tiny_sd1(folder / f"{name}-file.safetensors", seed=seed)
        write_tiny_sd1(folder / f"{name}-folder", "diffusers", seed=seed)
        write_tiny_sd1(folder / f"{name}-old.ckpt", "ckpt", seed=seed)
    results = [load_file(merged(place, model_a=f"a-{one}", model_b=f"b-{other}", name=f"{one}-{other}")[0])
               for one, other in (("file", "file"), ("folder", "file"), ("file", "folder"), ("folder", "old"))]
    for other in results[1:]:
        for name, tensor in results[0].items():
            if name in other and "position_ids" not in name:
                assert torch.equal(tensor, other[name]), name
        assert sum("model" in name for name in results[0]) - sum("model" in name for name in other) in (0, 1)


def test_folders_of_sdxl_have_the_names_of_files(place):
    folder = place.folders.checkpoints[0]
    file = load_file(write_tiny_sdxl(folder / "xl.safetensors", seed=3))
    write_sdxl_folder(folder / "xl-folder", seed=3)
    path, _ = merged(place, model_a="xl-folder", method="no_interpolation")
    found = load_file(path)
    assert set(found) <= set(file) and len(found) > 100
    for name, tensor in found.items():
        assert torch.equal(tensor, file[name]), name


@pytest.mark.parametrize("write", [write_tiny_sd1_folder, write_sdxl_folder])
def test_a_folder_is_written_with_all_that_it_holds(place, write):
    folder = place.folders.checkpoints[0]
    for seed, name in enumerate("ab"):
        write(folder / name, seed=seed)
    path, outcome = merged(place, alpha=1.0, format="diffusers", metadata_json='{"author": "me"}')
    assert path.is_dir() and outcome.warnings == () and read_recipe(read_metadata(read_header(path))).alpha == 1.0
    wanted, found = read_header(folder / "b"), read_header(path)
    assert dict(found.index) == dict(wanted.index) and detect(found)[1] == detect(read_header(folder / "a"))[1]
    assert {file.relative_to(path) for file in path.rglob("*.json")} == {
        file.relative_to(folder / "a") for file in (folder / "a").rglob("*.json")}
    for name, part in wanted.components.items():
        ours = {key: one for file in found.components[name].files for key, one in load_file(file).items()}
        theirs = {key: one for file in part.files for key, one in load_file(file).items()}
        assert set(ours) == {key for key in theirs if name == "text_encoder" or "position_ids" not in key}
        for key, tensor in ours.items():
            assert torch.equal(tensor, theirs[key]), key


def test_a_single_file_is_not_made_of_what_it_cannot_hold(place):
    folder = place.folders.checkpoints[0]
    write_tiny_sd1_folder(folder / "a")
    write_tiny_sd1(folder / "b.safetensors")
    with pytest.raises(InvalidModel, match="single file, and a folder takes"):
        merged(place, model_a="b", model_b="a", format="diffusers")
    config = folder / "a" / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 1.06}))
    with pytest.raises(InvalidModel, match="cannot hold what a says of its vae: scaling_factor"):
        merged(place, method="no_interpolation")


def test_an_inpainting_model_keeps_its_further_channels(place):
    folder = place.folders.checkpoints[0]
    write_tiny_sd1(folder / "a.safetensors", seed=0, takes="inpaint")
    for seed, name in ((1, "b"), (2, "c")):
        write_tiny_sd1(folder / f"{name}.safetensors", seed=seed)
    path, _ = merged(place, method="add_difference", alpha=1.0)
    key = "model.diffusion_model.input_blocks.0.0.weight"
    a, b, c, found = (load_file(file)[key] for file in (*(folder / f"{name}.safetensors" for name in "abc"), path))
    assert torch.equal(found[:, 4:], a[:, 4:])
    torch.testing.assert_close(found[:, :4], a[:, :4] + b - c)
    with pytest.raises(InvalidModel, match="must be model A"):
        merged(place, model_a="b", model_b="a", name="other")
    assert "other.safetensors" not in files(place)


@pytest.mark.parametrize("wanted, name", [("float32", "F32"), ("bfloat16", "BF16"), ("float8_e4m3fn", "F8_E4M3")])
def test_types_are_converted(models, wanted, name):
    path, _ = merged(models, method="no_interpolation", dtype=wanted)
    with safe_open(path, "pt") as file:
        types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - no mapping
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    assert types[key] == name
    assert types["model.diffusion_model.out.0.bias"] == ("F16" if name == "F8_E4M3" else name)


def test_a_ckpt_is_written_for_old_programs(models):
    path, _ = merged(models, alpha=0.5, format="ckpt")
    plain, _ = merged(models, alpha=0.5, name="plain")
    found, wanted = torch.load(path, weights_only=True)["state_dict"], load_file(plain)
    assert set(found) == set(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert path.stat().st_size < plain.stat().st_size * 1.2
    assert not [name for name in files(models) if name.startswith(".")]


def test_the_recipe_is_in_the_metadata_and_comes_back(models):
    path, outcome = merged(models, method="dare", alpha=0.4, beta=0.8, seed=3, metadata_json='{"author": "me"}')
    with safe_open(path, "pt") as file:
        found = file.metadata()
    assert found["author"] == "me" and read_recipe(found).beta == 0.8
    recipe, sources = json.loads(found["sd_merge_recipe"]), json.loads(found["sd_merge_models"])
    assert recipe["primary_model_hash"] == models.find_checkpoint("a").sha256 and len(sources) == 3
    assert recipe["type"] == "darkroom" and len(found["modelspec.hash_sha256"]) == 66
    assert set(found["modelspec.hash_sha256"][2:]) != {"0"}
    again, _ = merged(models, name="again", **{name: getattr(read_recipe(found), name) for name in (
        "model_a", "model_b", "model_c", "method", "alpha", "beta", "seed")})
    assert all(torch.equal(tensor, load_file(again)[name]) for name, tensor in load_file(path).items())


def test_a_vae_is_baked_in_and_names_are_discarded(models):
    place = models.folders.vae[0]
    place.mkdir(parents=True)
    prefix = "first_stage_model."
    vae = {name.removeprefix(prefix): one for name, one in tiny_sd1(9, HALF).items() if name.startswith(prefix)}
    save_file(vae, place / "other.safetensors")
    path, _ = merged(models, vae="other.safetensors", discard=r"^cond_stage_model\.")
    found = load_file(path)
    assert not any(name.startswith("cond_stage_model") for name in found)
    assert all(torch.equal(found[prefix + name], one) for name, one in vae.items())


@pytest.mark.parametrize("ema, count", [("drop", 0), ("keep", 2), ("use", 0)])
def test_averaged_weights(place, ema, count):
    tensors = tiny_sd1(0)
    name = "model.diffusion_model.out.2.weight"
    average = torch.full_like(tensors[name], 0.5)
    tensors |= {"model_ema.diffusion_modelout2weight": average, "model_ema.decay": torch.tensor(0.9)}
    save_file(tensors, place.folders.checkpoints[0] / "a.safetensors")
    found = load_file(merged(place, method="no_interpolation", ema=ema)[0])
    assert sum(name.startswith("model_ema") for name in found) == count
    assert torch.equal(found[name], average if ema == "use" else tensors[name])


def test_what_does_not_go_together_is_refused_and_leaves_nothing(models):
    folder = models.folders.checkpoints[0]
    write_tiny_sdxl(folder / "xl.safetensors")
    broken = tiny_sd1(4, HALF)
    broken["model.diffusion_model.out.2.weight"][0] = float("nan")
    save_file(broken, folder / "broken.safetensors")
    large = tiny_sd1(4)
    large["model.diffusion_model.out.2.weight"][0] = 1e6
    save_file(large, folder / "large.safetensors")
    short = {name: one for name, one in tiny_sd1(5, HALF).items() if not name.startswith("first_stage")}
    save_file(short, folder / "short.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "a.safetensors").read_bytes()[:-100])
    (folder / "configured.yaml").write_text("mine")
    before = files(models)
    for values, words in (
        ({"model_b": "xl"}, "Only models of one family"), ({"model_b": "broken"}, "NaN"),
        ({"model_a": "large", "method": "no_interpolation", "dtype": "float16"}, "bfloat16"),
        ({"model_b": "cut"}, "truncated"), ({"block_alpha": "1,2"}, "2 values"),
        ({"metadata_json": "["}, "not JSON"),
    ):
        with pytest.raises((InvalidModel, InvalidRequest), match=words):
            merged(models, **values)
    with pytest.raises(InvalidRequest, match="already"):
        merged(models, name="a")
    with pytest.raises(InvalidRequest, match="There is already a configured.yaml"):
        merged(models, name="configured")
    assert (folder / "configured.yaml").read_text() == "mine"
    with pytest.raises(Interrupted):
        merged(models, Progress(stop_at=0.5))
    assert files(models) == before
    _, outcome = merged(models, model_b="short")
    assert "are not in every model and were taken from A" in outcome.warnings[0]


def test_a_full_disk_is_told_and_leaves_nothing(models, monkeypatch):
    before = files(models)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(DiskFull, match="are needed"):
        merged(models)
    monkeypatch.undo()

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(writer, "_put", full)
    with pytest.raises(DiskFull, match="became full"):
        merged(models)
    assert files(models) == before


def test_the_yaml_of_a_source_is_copied(models):
    folder = models.folders.checkpoints[0]
    (folder / "b.yaml").write_text("parameterization: v")
    assert merged(models)[1].result["config"] and (folder / "result.yaml").read_text() == "parameterization: v"
    assert not merged(models, name="without", config="none")[1].result["config"]
