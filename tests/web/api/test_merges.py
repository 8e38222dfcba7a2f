import json

import pytest

from modules.core.codec import decode
from modules.core.lora import LoraExtraction, LoraMerge
from modules.core.merge import Recipe
from modules.core.merge_metadata import OURS
from tests.fixtures.fake_engine import write_stand_in_checkpoint


@pytest.fixture
def models(app):
    folder = app.folders.checkpoints[0]
    for name in ("a", "b", "c"):
        write_stand_in_checkpoint(folder, f"{name}.safetensors")
    return folder


def recipe_of(app, answer):
    assert answer.status_code == 202, answer.text
    return decode(Recipe, app.job(answer.json()["id"]).request.values)


def test_a_merge_is_queued_and_says_what_it_made(client, app, models):
    answer = client.post("/darkroom/v1/merges", json={"model_a": "a", "model_b": "b", "alpha": 0.25})
    assert recipe_of(app, answer) == Recipe("a.safetensors", "b.safetensors", alpha=0.25, name="0.75(a) + 0.25(b)")
    job = app.wait(answer.json()["id"], 10)
    assert job.request.kind == "merge" and job.result["name"] == "0.75(a) + 0.25(b).safetensors"
    assert answer.headers["location"].endswith(job.id)


def test_fields_of_a1111_are_accepted(client, app, models):
    answer = client.post("/darkroom/v1/merges", json={
        "primary_model_name": "a", "secondary_model_name": "b", "tertiary_model_name": "c", "multiplier": 1,
        "interp_method": "Add difference", "save_as_half": True, "custom_name": "mine", "checkpoint_format": "ckpt",
        "config_source": 3, "bake_in_vae": "None", "discard_weights": "^betas", "save_metadata": True,
        "add_merge_recipe": False, "copy_metadata_fields": False, "metadata_json": "{}"})
    assert recipe_of(app, answer) == Recipe(
        "a.safetensors", "b.safetensors", "c.safetensors", "add_difference", alpha=1.0, name="mine", format="ckpt",
        dtype="float16", config="none", discard="^betas", add_recipe=False, copy_metadata=False, metadata_json="{}")


@pytest.mark.parametrize("change, status, words", [
    ({"model_b": "nothing"}, 404, "no checkpoint"), ({"method": "guess"}, 422, "method"),
    ({"alpha": "x"}, 422, "alpha"),
    ({"name": "a"}, 422, "already"), ({"discard": "("}, 422, "regular expression"),
    ({"name": "../../x"}, 422, "file's name"), ({"interp_method": "x"}, 422, "method"),
    ({"metadata_json": "["}, 422, "JSON"), ({"unknown": 1}, 422, "unknown"), ({"vae": "none.pt"}, 404, "VAE"),
])
def test_what_cannot_be_is_refused_at_once(client, models, change, status, words):
    answer = client.post("/darkroom/v1/merges", json={"model_a": "a", "model_b": "b", **change})
    assert answer.status_code == status and words in answer.json()["detail"]


def test_loras_are_merged_and_extracted(client, app, models):
    folder = app.folders.lora[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "style.safetensors").write_bytes((models / "a.safetensors").read_bytes())
    asked = client.post("/darkroom/v1/merges/loras", json={"loras": "<lora:style:0.5>", "model": "a", "rank": 8})
    assert asked.status_code == 202, asked.text
    job = app.wait(asked.json()["id"], 10)
    assert decode(LoraMerge, job.request.values) == LoraMerge("<lora:style:0.5>", "a.safetensors", 8, "style-merged")
    asked = client.post("/darkroom/v1/merges/extractions", json={"model_a": "a", "model_b": "b", "rank": 4})
    assert asked.status_code == 202, asked.text
    job = app.wait(asked.json()["id"], 10)
    assert job.result["kept"] == 0.5 and job.request.kind == "extract_lora"
    assert decode(LoraExtraction, job.request.values) == LoraExtraction("a.safetensors", "b.safetensors", 4,
                                                                       name="b - a (4)")
    for path, body, status, words in (
        ("loras", {"loras": "<lora:none:1>"}, 404, "no lora"), ("loras", {"loras": "none"}, 422, "as in a prompt"),
        ("loras", {"loras": "<lora:style:1>", "name": "style"}, 422, "already"), ("loras", {}, 422, "No LoRAs"),
        ("extractions", {"model_a": "a"}, 422, "Model B"), ("extractions", {"rank": "x"}, 422, "rank"),
    ):
        answer = client.post(f"/darkroom/v1/merges/{path}", json=body)
        assert answer.status_code == status and words in answer.json()["detail"], answer.text


def test_methods_are_listed_and_recipes_read(client, models):
    listed = client.get("/darkroom/v1/merges/methods").json()
    assert len(listed["methods"]) == 15 and "GRAD_V" in listed["presets"]
    header = json.dumps({"__metadata__": {OURS: json.dumps({"method": "slerp", "alpha": 0.5})}}).encode()
    (models / "merged.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert client.post("/darkroom/v1/merges/recipe", json={"model": "merged"}).json()["method"] == "slerp"
    assert client.post("/darkroom/v1/merges/recipe", json={"model": "a"}).status_code == 422
