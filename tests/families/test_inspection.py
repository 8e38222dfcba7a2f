"""What headers show, on tiny models and on what networks' files are called."""

import pytest
import torch
from safetensors.torch import save_file

from modules.families.inspection import LABELS, inspect, matching
from modules.library.files import CHECKPOINT, EMBEDDING, LORA, SUFFIXES, UPSCALER, VAE
from modules.library.headers import SAFETENSORS, Header, read_header
from modules.library.tensors import TensorInfo
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_tiny_sdxl
from tests.fixtures.tiny_x4 import write_tiny_x4


def header(shapes, metadata=None):
    return Header("", SAFETENSORS, {name: TensorInfo("F16", shape) for name, shape in shapes.items()}, metadata or {})


@pytest.mark.parametrize("layout", ["safetensors", "ckpt", "diffusers"])
def test_a_checkpoint_is_counted_by_component_in_every_layout(tmp_path, layout):
    tensors = tiny_sd1()
    found = inspect(CHECKPOINT, read_header(write_tiny_sd1(tmp_path / "model.safetensors", layout)))
    assert found.what == "Stable Diffusion 1.x" and found.family == "sd15" and not found.problem
    counts = {part.name: part.elements for part in found.parts}
    for component, prefix in (("unet", "model.diffusion_model."), ("vae", "first_stage_model.")):
        assert counts[component] == sum(one.numel() for name, one in tensors.items() if name.startswith(prefix))
    assert found.bytes == sum(part.bytes for part in found.parts) >= 4 * counts["unet"]


def test_what_a_denoiser_takes_and_what_is_missing_is_said(tmp_path):
    found = inspect(CHECKPOINT, read_header(write_tiny_sd1(tmp_path / "a.safetensors", vae=False, takes="inpaint")))
    assert found.what == "Stable Diffusion 1.x, inpainting model"
    assert found.details["Missing"] == "VAE" and found.details["Prediction"] == "epsilon (the file does not say)"


def test_what_the_metadata_say_of_the_prediction_is_said(tmp_path):
    path = tmp_path / "v.safetensors"
    save_file(tiny_sd1(), path, {"modelspec.prediction_type": "v"})
    assert inspect(CHECKPOINT, read_header(path)).details["Prediction"] == "v"


def test_averaged_weights_and_what_belongs_nowhere_are_parts_of_their_own(tmp_path):
    path = tmp_path / "ema.safetensors"
    more = {"model_ema.diffusion_modelout0bias": torch.zeros(3), "betas": torch.zeros(5)}
    save_file(tiny_sd1() | more, path)
    parts = {part.name: part.elements for part in inspect(CHECKPOINT, read_header(path)).parts}
    assert parts["unet (EMA)"] == 3 and parts["other"] == 5


def test_two_text_encoders_are_two_parts(tmp_path):
    found = inspect(CHECKPOINT, read_header(write_tiny_sdxl(tmp_path / "xl.safetensors")))
    assert [part.name for part in found.parts] == ["text_encoder", "text_encoder_2", "unet", "vae"]


def test_a_file_that_is_no_checkpoint_says_why():
    found = inspect(CHECKPOINT, header({"lora_unet_x.lora_up.weight": (4, 2)}))
    assert "cannot be used" in found.what and "LoRA" in found.problem and found.parts[0].tensors == 1


def test_ranks_are_counted_by_part():
    found = inspect(LORA, header({
        "lora_unet_a.lora_down.weight": (8, 768), "lora_unet_a.lora_up.weight": (320, 8), "lora_unet_a.alpha": (),
        "lora_unet_b.lora_down.weight": (16, 320, 3, 3), "lora_unet_c.lora_down.weight": (8, 320),
        "lora_te_text_model_x.lora_down.weight": (4, 768)}))
    assert {part.name: dict(part.ranks) for part in found.parts} == {"unet": {8: 2, 16: 1}, "text_encoder": {4: 1}}
    assert found.what == "LoRA"


@pytest.mark.parametrize("name, what, part", [
    ("unet.down_blocks.0.attn.to_k.lora_A.weight", "LoRA", "unet"),
    ("base_model.model.text_encoder_2.x.lora_A.default.weight", "LoRA", "text_encoder_2"),
    ("lora_te2_text_model_x.hada_w1_b", "LoHa", "text_encoder_2"),
    ("lora_unet_x.lokr_w2_b", "LoKr", "unet"),
    ("lora_te1_x.oft_blocks", "OFT", "text_encoder"),
    ("base_model.model.down_blocks.0.attn.to_k.ia3_l", "IA3", "unet"),
    ("base_model.model.unet.mid_block.attn.to_k.ia3_l.default", "IA3", "unet"),
    ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight", "LoRA", "unet"),
    ("unet:0:down", "LoRA", "unet"), ("text_encoder:12:down", "LoRA", "text_encoder"),
    ("lora_unet_x.w_norm", "Full", "unet"), ("lora_unet_x.b_norm", "Full", "unet"),
    ("lora_te_x.diff_b", "Full", "text_encoder"),
    ("unet.x.lora_magnitude_vector.weight", "DoRA", "unet"), ("x", "Network of no kind known here", "other"),
])
def test_kinds_of_networks_are_told_by_names(name, what, part):
    found = inspect(LORA, header({name: (4, 8)}))
    assert found.what.startswith(what) and found.parts[0].name == part


@pytest.mark.parametrize("name", [
    "unet:3:down", "mid_block.attn1.processor.to_out_lora.down.weight", "unet.x.lora_A.default.weight",
    "unet.x.lora_linear_layer.down.weight", "lora_unet_x.lokr_w1_b",
])
def test_ranks_are_told_in_every_layout(name):
    assert inspect(LORA, header({name: (8, 320)})).parts[0].ranks == {8: 1}


def test_vectors_of_an_embedding_are_counted():
    found = inspect(EMBEDDING, header({"clip_l": (4, 768), "clip_g": (4, 1280)}))
    assert found.what == "Embedding for Stable Diffusion XL"
    assert found.details == {"clip_l": "4 vectors of 768", "clip_g": "4 vectors of 1280"}


def test_an_autoencoder_has_two_sides():
    found = inspect(VAE, header({"encoder.conv_in.weight": (8, 3, 3, 3), "first_stage_model.decoder.x": (2,)}))
    assert {part.name: part.elements for part in found.parts} == {"encoder": 216, "decoder": 2}


@pytest.mark.parametrize("name, what", [
    ("body.0.rdb1.conv1.weight", "Upscaler, ESRGAN (RRDBNet)"),
    ("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", "Upscaler, SwinIR"),
    ("other", "Upscaler"),
])
def test_upscalers_are_told_by_names(name, what):
    assert inspect(UPSCALER, header({name: (3,)})).what == what


@pytest.mark.parametrize("layout", ["safetensors", "diffusers"])
def test_a_diffusion_model_among_upscalers_is_told_as_a_checkpoint_is(tmp_path, layout):
    path = write_tiny_x4(tmp_path / f"x4{'.safetensors' if layout == 'safetensors' else ''}", layout)
    found = inspect(UPSCALER, read_header(path))
    assert found == inspect(CHECKPOINT, read_header(path))
    assert found.what == "Stable Diffusion x4 upscaler" and {part.name for part in found.parts} >= {"unet", "vae"}


def test_tensors_are_found_by_words_in_the_order_of_their_numbers():
    found = header({"b.10.weight": (1,), "b.2.weight": (1,), "a.bias": (1,), "b.2.bias": (2,)})
    assert [name for name, _ in matching(found, "B weight")] == ["b.2.weight", "b.10.weight"]
    assert len(matching(found, "")) == 4 and matching(found, "weight bias") == []


def test_every_kind_of_model_file_has_a_name_for_people():
    assert set(LABELS) == set(SUFFIXES)
