import pytest

from modules.families.compatibility import family_of, named
from modules.library.files import CHECKPOINT, EMBEDDING, HYPERNETWORK, LORA
from modules.library.headers import SAFETENSORS, Header
from modules.library.tensors import TensorInfo


def header(metadata=None, **shapes):
    tensors = {name: TensorInfo("F16", shape) for name, shape in shapes.items()}
    return Header("x", SAFETENSORS, tensors, metadata or {})


def lora(name, *shape):
    return header(**{name: shape})


@pytest.mark.parametrize("text, family", [
    ("sd_v1", "sd15"), ("SD 1.5", "sd15"), ("SD 1.5 LCM", "sd15"), ("SD1", "sd15"),
    ("stable-diffusion-v1/lora", "sd15"),
    ("sd_v2_v", "sd2"), ("SD 2.1 768", "sd2"), ("stable-diffusion-v2-768-v/lora", "sd2"), ("SD2", "sd2"),
    ("sdxl_base_v1-0", "sdxl"), ("SDXL", "sdxl"), ("SDXL Turbo", "sdxl"), ("Pony", "sdxl"), ("Illustrious", "sdxl"),
    ("stable-diffusion-xl-v1-base/lora", "sdxl"), ("SD 3.5 Large", "sd3"), ("stable-diffusion-3-medium", "sd3"),
    ("Flux.1 D", "flux"), ("flux-1-dev/lora", "flux"), ("Wan Video 14B", "other"), ("Qwen", "other"),
    ("Other", ""), ("Unknown", ""), ("", ""), ("my own model", ""), ("Pony V7", "other"),
])
def test_names_of_models_are_understood(text, family):
    assert named(text) == family


@pytest.mark.parametrize("found, family", [
    (lora("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", 4, 768), "sd15"),
    (lora("lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_v.hada_w1_b", 4, 1024), "sd2"),
    (lora("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", 4, 2048), "sdxl"),
    (lora("down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight", 4, 768), "sd15"),
    (lora("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", 4, 768), "sd15"),
    (lora("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", 4, 1024), "sd2"),
    (lora("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", 4, 1280), "sdxl"),
    (lora("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 4, 3072), "flux"),
    (lora("lora_unet_joint_blocks_0_context_block_attn_qkv.lora_down.weight", 4, 1536), "sd3"),
    (lora("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", 4, 96), ""),
    (lora("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.alpha"), ""),
    (header(), ""),
])
def test_shapes_of_a_lora_show_its_family(found, family):
    assert family_of(LORA, found) == family


@pytest.mark.parametrize("found, family", [
    (header(emb_params=(2, 768)), "sd15"), (header(emb_params=(1024,)), "sd2"), (header(emb_params=()), ""),
    (header(clip_l=(1, 768), clip_g=(1, 1280)), "sdxl"), (header(a=(1, 768), b=(1, 768)), ""), (header(), ""),
])
def test_widths_of_an_embedding_show_its_family(found, family):
    assert family_of(EMBEDDING, found) == family


def test_the_users_word_comes_first_then_shapes_then_metadata_then_what_others_say():
    wide = lora("x_attn2_to_k.lora_down.weight", 4, 768)
    assert family_of(LORA, wide, "SDXL", ("Flux",)) == "sdxl"
    assert family_of(LORA, wide, "Unknown", ("Flux",)) == "sd15"
    told = header({"ss_base_model_version": "sd_v2", "modelspec.architecture": "stable-diffusion-v1"})
    assert family_of(LORA, told, "", ("Flux",)) == "sd2"
    assert family_of(HYPERNETWORK, None, "", ("SD 1.5",)) == "sd15" and family_of(LORA, None) == ""


def test_what_is_no_checkpoint_has_no_family():
    assert family_of(CHECKPOINT, header(x=(1,))) == ""
