import json

import pytest

from modules.core.codec import encode
from modules.core.inspection import Check
from modules.core.merge import Recipe
from modules.core.merge_metadata import OURS
from tests.fixtures.networks import MODULE, write_network

ROOT = "/darkroom/v1/inspections"
AMBER = {"kind": "lora", "name": "deep/amber.safetensors"}


@pytest.fixture
def network(app):
    folder = app.folders.lora[0] / "deep"
    folder.mkdir(parents=True)
    recipe = json.dumps(encode(Recipe("a", "b", alpha=0.25)))
    write_network(folder / "amber.safetensors", metadata={
        "ss_tag_frequency": '{"a": {"warm": 3, "cold": 5}}', "ss_network_alpha": "1", OURS: recipe,
        "note": "x" * 30_000})


@pytest.mark.usefixtures("network")
def test_a_network_is_described(client):
    found = client.get(ROOT, params={"kind": "lora", "name": "amber"}).json()
    assert (found["name"], found["what"], found["family"]) == (AMBER["name"], "LoRA for Stable Diffusion 1.x", "sd15")
    assert found["parts"] == [{"name": "unet", "tensors": 2, "elements": 772, "bytes": 1544, "dtypes": {"F16": 2},
                               "ranks": {"1": 1}}]
    assert found["tags"] == [["cold", 5], ["warm", 3]] and found["training"] == {"Alpha": "1"}
    assert found["recipe"]["alpha"] == 0.25 and len(found["metadata"]["note"]) == 20_000
    assert found["hashes"]["sha256"] == "" and found["hashes"]["AutoV1"] == "E3B0C442"


@pytest.mark.usefixtures("network")
def test_tensors_are_searched_and_paged(client):
    asked = {**AMBER, "limit": 1, "offset": 1}
    page = client.get(f"{ROOT}/tensors", params=asked).json()
    assert page["count"] == 2 and [one["name"] for one in page["tensors"]] == [f"{MODULE}.lora_up.weight"]
    found = client.get(f"{ROOT}/tensors", params={**AMBER, "text": "LORA_DOWN weight"}).json()["tensors"]
    assert found == [{"name": f"{MODULE}.lora_down.weight", "dtype": "F16", "shape": [1, 768], "bytes": 1536}]


@pytest.mark.usefixtures("network")
def test_names_are_found_by_words(client):
    assert client.get(f"{ROOT}/names", params={"kind": "lora", "text": "AMB deep"}).json() == {
        "names": ["deep/amber.safetensors"], "count": 1}
    assert {"kind": "vae", "label": "VAE"} in client.get(f"{ROOT}/kinds").json()


@pytest.mark.usefixtures("network")
def test_a_check_is_queued(client, app):
    answer = client.post(f"{ROOT}/checks", json={**AMBER, "name": "amber", "hashes": False})
    assert answer.status_code == 202 and answer.headers["location"].endswith(answer.json()["id"])
    job = app.wait(answer.json()["id"], 10)
    assert job.request.kind == "inspect" and Check(**job.request.values) == Check(**AMBER, hashes=False)
    assert job.result["values"]["tensors"] == 1 and job.request.summary == "values"


@pytest.mark.parametrize("asked, status", [
    ({"kind": "lora", "name": "../secret"}, 404), ({"kind": "lamp", "name": "x"}, 422), ({"kind": "lora"}, 422),
    ({"kind": "checkpoint", "name": "stand-in"}, 422),  # a file of one byte
])
def test_bad_names_are_refused(client, asked, status):
    assert client.get(ROOT, params=asked).status_code == status
    assert client.get(f"{ROOT}/tensors", params=asked).status_code == status


def test_a_check_of_nothing_is_refused(client, app):
    asked = {"kind": "checkpoint", "name": "stand-in", "hashes": False, "values": False}
    assert client.post(f"{ROOT}/checks", json=asked).status_code == 422 and app.jobs() == []
    assert client.post(f"{ROOT}/checks", json={**asked, "path": "x"}).status_code == 422
