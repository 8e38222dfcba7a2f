"""Names of modules: every weight of the loaded networks has a place, whose names are those of real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modules.core.plan import ModelRef
from modules.families import detect
from modules.library.headers import read_header
from modules.plugin import weight_places
from modules.runtime.device import Placement
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_sd2 import write_tiny_sd2
from tests.fixtures.tiny_sdxl import write_tiny_sdxl


def sd1(path: Path) -> Path:
    return write_tiny_sd1(path / "sd1.safetensors")


def folder(path: Path) -> Path:
    return write_tiny_sd1(path / "sd1", "diffusers")


def sd2(path: Path) -> Any:
    write_tiny_sd2(path / "sd2.safetensors")
    return path / "sd2.safetensors"


def sdxl(path: Path) -> Any:
    write_tiny_sdxl(path / "sdxl.safetensors")
    return path / "sdxl.safetensors"


@pytest.mark.parametrize("write", [sd1, folder, sd2, sdxl])
def test_places_are_the_parameters_of_the_loaded_model(write: Any, tmp_path: Path) -> None:
    path = str(write(tmp_path))
    family, variant = detect(read_header(path))
    model: Any = family.load(variant, path, None, Placement())
    expected = {(component, name): tuple(weight.shape) for component, module in model.modules.items()
                if component != "vae" for name, weight in module.named_parameters()}
    found = {(place.component, f"{place.path}.{kind}"): shape for place in weight_places(ModelRef(path)).values()
             for kind, shape in (("weight", place.weight), ("bias", place.bias)) if shape is not None}
    assert found == expected


# As they stand in files of kohya-ss' sd-scripts, diffusers, PEFT and ComfyUI.
@pytest.mark.parametrize(("write", "name", "component", "path", "block"), [
    (sd1, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet",
     "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "IN01"),
    (sd1, "lora_unet_mid_block_attentions_0_proj_in", "unet", "mid_block.attentions.0.proj_in", "M00"),
    (sd1, "lora_unet_input_blocks_2_0_op", "unet", "down_blocks.0.downsamplers.0.conv", "IN02"),
    (sd1, "lora_unet_time_embedding_linear_1", "unet", "time_embedding.linear_1", "BASE"),
    (folder, "unet.up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "unet",
     "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "OUT02"),
    (sd1, "diffusion_model.output_blocks.2.0.in_layers.2", "unet", "up_blocks.1.resnets.0.conv1", "OUT02"),
    (sd1, "lora_te_text_model_encoder_layers_1_mlp_fc1", "text_encoder", "encoder.layers.1.mlp.fc1", "BASE"),
    (sd2, "lora_te_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", "encoder.layers.0.self_attn.q_proj",
     "BASE"),
    (sdxl, "lora_te1_text_model_encoder_layers_0_self_attn_v_proj", "text_encoder",
     "encoder.layers.0.self_attn.v_proj", "BASE"),
    (sdxl, "lora_te2_text_model_encoder_layers_0_self_attn_v_proj", "text_encoder_2",
     "encoder.layers.0.self_attn.v_proj", "BASE"),
    (sdxl, "text_encoder_2.text_model.encoder.layers.0.mlp.fc2", "text_encoder_2", "encoder.layers.0.mlp.fc2", "BASE"),
    (sdxl, "lora_te2_text_projection", "text_encoder_2", "text_projection", "BASE"),
])
def test_names_of_files(write: Any, name: str, component: str, path: str, block: str, tmp_path: Path) -> None:
    place = weight_places(ModelRef(str(write(tmp_path))))[name]
    assert (place.component, place.path, place.block) == (component, path, block)
