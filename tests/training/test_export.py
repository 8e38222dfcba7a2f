import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from modules.families.clip_tokenizer import folder_tokenizer
from modules.training import export, stages


@pytest.fixture(scope="module")
def folder(config, trained, tmp_path_factory):
    target = tmp_path_factory.mktemp("model") / "starter"
    export.export(config, trained, target)
    return target


def test_diffusers_loads_the_folder_and_draws(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red circle", num_inference_steps=2, output_type="pt").images
    assert picture.shape == (1, 3, 32, 32) and bool(picture.isfinite().all())


def test_weights_are_half_precision_of_the_averages(config, trained, folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16, local_files_only=True)
    denoiser = stages.trained_denoiser(config, trained)
    for name, value in pipeline.unet.named_parameters():
        assert value.dtype == torch.float16
        assert torch.equal(value, denoiser.unet.get_parameter(name).half())
    files = list(folder.rglob("*.safetensors"))
    assert {tensor.dtype for file in files for tensor in load_file(file).values()} == {torch.float16}


def test_the_scheduler_and_tokenizer_are_those_of_training(config, folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.beta_end == config.diffusion.beta_end
    assert pipeline.tokenizer.model_max_length == config.diffusion.positions
    assert pipeline.tokenizer("a red circle")["input_ids"][1:-1] == folder_tokenizer(folder / "tokenizer").encode(
        "a red circle"
    )


def test_no_configuration_says_where_it_was_made(trained, folder):
    for path in folder.rglob("*.json"):
        assert str(trained.folder) not in path.read_text("utf-8")


def test_no_file_is_larger_than_a_shard(folder):
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 15 * 10**6
