"""``webui.py inspect`` on files of a few bytes."""

import json

import pytest
import torch
from safetensors.torch import save_file

from modules.app import inspect_command
from modules.launcher.commands import INSPECT, InspectArguments, parse
from modules.launcher.flags import Flags
from tests.fixtures.tiny_models import write_tiny_sd1


@pytest.fixture
def shown(tmp_path, capsys):
    lora, checkpoints = tmp_path / "models" / "Lora", tmp_path / "models" / "Stable-diffusion"
    lora.mkdir(parents=True)
    down = {"lora_unet_a.lora_down.weight": torch.ones(4, 768), "lora_unet_a.alpha": torch.tensor(2.0)}
    save_file(down, lora / "amber.safetensors", {"ss_network_dim": "4", "ss_tag_frequency": '{"a": {"warm": 3}}'})
    write_tiny_sd1(checkpoints / "tiny.safetensors")

    def run(*words):
        call = parse([INSPECT, *words, "--data-dir", str(tmp_path)], {})
        status = inspect_command.inspect(call.inspect, call.flags)
        return status, capsys.readouterr()
    return run


def test_a_network_is_found_by_its_name_alone(shown):
    status, out = shown("amber")
    assert status == 0 and "LoRA" in out.out and "rank 4: 1 modules" in out.out and "warm (3)" in out.out


def test_json_has_the_numbers_of_a_check(shown):
    status, out = shown("amber", "--kind", "lora", "--check", "--json")
    found = json.loads(out.out)
    assert status == 0 and found["parts"][0]["ranks"] == {"4": 1} and found["training"] == {"Rank": "4"}
    assert found["values"]["alphas"] == {"unet": {"2": 1}} and len(found["hashes"]["sha256"]) == 64
    assert found["hashes"]["AutoV2"] == found["hashes"]["sha256"][:10].upper() and len(found["hashes"]["AutoV3"]) == 12


def test_a_check_is_told_in_words(shown):
    status, out = shown("tiny", "--check")
    assert status == 0 and "Stable Diffusion 1.x" in out.out and "Tensors with NaN: 0" in out.out


def test_an_unknown_name_gets_near_ones(shown):
    status, out = shown("tinysafetensors")
    assert status == 2 and "tiny.safetensors" in out.err and out.out == ""


def test_an_unknown_kind_is_refused(shown):
    status, out = shown("tiny", "--kind", "lamp")
    assert status == 2 and "lamp" in out.err


def test_arguments_are_read():
    call = parse([INSPECT, "a name", "--json", "--port", "3"], {})
    assert call.inspect == InspectArguments("a name", as_json=True) and call.flags == Flags(port=3)
