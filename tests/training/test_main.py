import dataclasses

import pytest
from safetensors.torch import load_file

from modules.training import __main__ as command
from modules.training import config as configuration

TOML = """
[data]
size = 32
held_out = 0.3
[autoencoder]
block_out_channels = [16, 24, 32]
norm_num_groups = 4
latent_channels = 4
linear_start = 4
loop = {steps = 2, batch = 2, lr = 1e-3}
[diffusion]
loop = {steps = 2, batch = 2, lr = 1e-3}
draws = 2
wordings = 1
block_out_channels = [32, 32]
attention = [false, true]
heads = 2
text_width = 32
text_layers = 1
text_heads = 2
vocabulary = 520
positions = 16
text_warmup = 3
"""


@pytest.fixture
def arguments(archive, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    return ["--config", str(path), "--data-dir", str(archive.parent), "--run-dir", str(tmp_path / "run"),
            "--device", "cpu", "--output", str(tmp_path / "model")]


def test_each_stage_is_one_command(arguments, tmp_path):
    for stage in command.STAGES[1:-1]:
        assert command.main([stage, *arguments]) == 0
    assert (tmp_path / "model" / "model_index.json").is_file()


def test_all_stages_are_one_command_called_until_it_is_done(arguments, tmp_path):
    codes = [command.main(["all", *arguments, "--seconds", "0"]) for _ in range(2)]
    assert codes == [command.OUT_OF_TIME, command.OUT_OF_TIME]
    assert command.main(["all", *arguments]) == 0
    assert (tmp_path / "model" / "model_index.json").is_file()
    assert [path.name for path in sorted((tmp_path / "run" / "diffusion").glob("step-*"))][-1] == "step-0000002"


def test_a_run_goes_on_from_an_exported_model(arguments, tmp_path):
    assert command.main(["all", *arguments]) == 0
    first = tmp_path / "model"
    arguments[5], arguments[9] = str(tmp_path / "second"), str(tmp_path / "model2")
    assert command.main(["all", *arguments, "--start-from", str(first), "--steps", "1"]) == 0
    assert not (tmp_path / "second" / "autoencoder").exists()
    for name in ("vocab.json", "merges.txt"):
        assert (first / "tokenizer" / name).read_text() == (tmp_path / "model2" / "tokenizer" / name).read_text()
    one, other = (
        load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") for folder in (first, tmp_path / "model2")
    )
    assert max(float((one[name].float() - other[name].float()).abs().max()) for name in one) < 0.01


def test_a_run_out_of_time_has_its_own_exit_code_and_resumes(arguments):
    assert command.main(["autoencoder", *arguments, "--seconds", "0"]) == command.OUT_OF_TIME
    assert command.main(["autoencoder", *arguments]) == 0


def test_an_expected_failure_is_one_line(arguments, caplog):
    assert command.main(["diffusion", *arguments]) == 1
    assert "Run the stage latents first" in caplog.text


def test_steps_can_be_given_for_the_machine_at_hand(arguments):
    config = configuration.read(command.CONFIGS / "gpu.toml", configuration.TrainingConfig)
    config = command.with_steps(config, "diffusion", 7)
    assert config.diffusion.loop.steps == 7 and config.autoencoder.loop.steps != 7
    assert dataclasses.replace(config) == config


def test_preparing_writes_the_archive(arguments, packages, tmp_path, monkeypatch):
    monkeypatch.setattr(command.dataset, "fetch", lambda folder: packages)
    arguments[3] = str(tmp_path / "fresh")
    assert command.main(["prepare", *arguments]) == 0
    assert (tmp_path / "fresh" / "emoji-32.zip").is_file()


ADAPTERS = {"lora": "[lora]\nrank = 2", "embedding": '[embedding]\nword = "aglow"\nstart = "red"\nvectors = 2'}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_is_one_command_that_goes_on_where_it_was(arguments, tmp_path, kind):
    assert command.main(["all", *arguments]) == 0
    own = tmp_path / f"{kind}.toml"
    diffusion = "[diffusion]\nloop = {steps = 2, batch = 2, lr = 1e-3}\ndraws = 2"
    own.write_text(f'style = "sepia"\n[data]\nsize = 32\n{ADAPTERS[kind]}\n{diffusion}\n')
    model, file = arguments[-1], tmp_path / f"{kind}.safetensors"
    given = [kind, "--config", str(own), *arguments[2:-1], str(file), "--model", model]
    assert command.main([*given, "--seconds", "0"]) == command.OUT_OF_TIME
    first = {name: value.tolist() for name, value in load_file(file).items()}
    assert command.main(given) == 0
    assert {name: value.tolist() for name, value in load_file(file).items()} != first


def test_an_adapter_without_a_model_says_so(arguments, caplog):
    assert command.main(["lora", "--data-dir", arguments[3], "--device", "cpu"]) == 1
    assert "no model" in caplog.text
