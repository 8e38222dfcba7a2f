"""What tensors of small networks are called, layout by layout."""

import pytest

from modules.library.network_names import DOWN, SCALE, UP, ordered, split


@pytest.mark.parametrize("key, found", [
    ("lora_unet_mid_block_attn_to_k.lora_down.weight", ("lora_unet_mid_block_attn_to_k", DOWN)),
    ("base_model.model.unet.mid.to_k.lora_B.default.weight", ("unet.mid.to_k", UP)),
    ("base_model.model.unet.mid.to_k.lora_magnitude_vector.default.weight", ("unet.mid.to_k", SCALE)),
    ("mid.attn1.processor.to_out_lora.up.weight", ("mid.attn1.to_out.0", UP)),
    ("mid.attn1.to_q.lora_linear_layer.down.weight", ("mid.attn1.to_q", DOWN)),
    ("unet:12:down", ("unet:12", DOWN)), ("lora_te_x.alpha", ("lora_te_x", "alpha")),
    ("alpha", None), ("lora_te_x.something", None),
])
def test_names_are_split_into_module_and_tensor(key, found):
    assert split(key) == found


@pytest.mark.parametrize("key, found", [
    ("text_encoder:3:up", ("text_encoder", 3, UP)), ("vae:3:up", None), ("unet:x:up", None),
])
def test_numbered_modules(key, found):
    assert ordered(key) == found
