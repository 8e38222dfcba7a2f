"""The commands that work on model files, carried out in this process."""

import pytest
from safetensors.torch import load_file, save_file

from modules.app import work_command
from modules.core.errors import InvalidRequest
from modules.core.lora import LoraExtraction, LoraMerge
from modules.core.merge import Recipe
from modules.launcher.commands import parse
from modules.launcher.flags import Flags
from tests.fixtures.tiny_loras import tiny_lora
from tests.fixtures.tiny_models import write_tiny_sd1


@pytest.mark.parametrize("words, work", [
    (["merge", "--model-a", "x", "--model-b", "y", "--alpha", "0.4", "--loras", "<lora:z:1>", "--no-save-metadata"],
     Recipe("x", "y", alpha=0.4, loras="<lora:z:1>", save_metadata=False)),
    (["merge-loras", "--loras", "<lora:z:1>", "--rank", "8"], LoraMerge("<lora:z:1>", rank=8)),
    (["extract-lora", "--model-a", "x", "--model-b", "y", "--conv-rank", "4", "--exact"],
     LoraExtraction("x", "y", conv_rank=4, exact=True)),
])
def test_arguments_are_fields(words, work):
    call = parse([*words, "--port", "3"], {})
    assert call.work == work and call.flags == Flags(port=3) and call.command == words[0]


@pytest.mark.parametrize("words, message", [
    (["merge"], "Model A"), (["merge", "--model-a", "x", "--method", "guess"], "method"),
    (["merge-loras"], "No LoRAs"), (["extract-lora", "--model-a", "x", "--model-b", "y", "--rank", "z"], "rank"),
    (["merge", "--moddel-a", "x"], "--model-a"),
])
def test_what_cannot_be_is_said_at_once(words, message):
    with pytest.raises(InvalidRequest) as raised:
        parse(words, {})
    assert message in str(raised.value)


def test_files_are_written_and_named(tmp_path, capsys):
    models = tmp_path / "models" / "Stable-diffusion"
    for seed, name in enumerate("ab"):
        write_tiny_sd1(models / f"{name}.safetensors", seed=seed)
    (tmp_path / "models" / "Lora").mkdir()
    save_file(tiny_lora(models / "a.safetensors", only="mid_block"), tmp_path / "models" / "Lora" / "style.safetensors")

    def run(*words):
        call = parse([*words, "--data-dir", str(tmp_path)], {})
        return work_command.carry_out(call.work, call.flags), capsys.readouterr()

    status, said = run("extract-lora", "--model-a", "a", "--model-b", "b", "--rank", "2", "--no-text-encoders")
    assert (status, said.out) == (0, "b - a (2).safetensors\n") and "biases, norms" in said.err
    status, said = run("merge-loras", "--loras", "<lora:style:1><lora:b - a (2):0.5>", "--model", "a", "--name", "two")
    assert (status, said.out) == (0, "two.safetensors\n")
    assert (tmp_path / "models" / "Lora" / "two.safetensors").is_file()
    status, said = run("merge", "--model-a", "a", "--method", "no_interpolation", "--loras", "<lora:two:1>",
                       "--dtype", "float16", "--name", "made")
    assert status == 0 and len(load_file(models / "made.safetensors")) == len(load_file(models / "a.safetensors"))
    status, said = run("merge", "--model-a", "a", "--model-b", "none")
    assert status == 2 and "no checkpoint named 'none'" in said.err
