import subprocess
import sys

import pytest

from modules.core.errors import InvalidModel
from modules.families import FAMILIES, detect
from modules.library.headers import Component, Header, TensorInfo
from tests.fixtures.tiny_models import clip_shapes, unet_shapes, vae_shapes


def header(*names, **shapes):
    tensors = {name: TensorInfo("F16", (4, 4)) for name in names}
    return Header("x.safetensors", "safetensors", tensors | {k: TensorInfo("F16", s) for k, s in shapes.items()})


@pytest.mark.parametrize(("names", "seems"), [
    (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "LoRA"),
    (["unet.mid_block.attentions.0.to_q.lora_A.weight"], "LoRA"),
    (["model.diffusion_model.label_emb.0.0.weight", "conditioner.embedders.0.x"], "SDXL model of a shape"),
    (["model.diffusion_model.label_emb.0.0.weight", "embedder.model.visual.x"], "unCLIP"),
    (["model.diffusion_model.label_emb.weight", "cond_stage_model.model.ln_final.weight"], "x4 upscaler"),
    (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
    (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "Stable Diffusion 3"),
    (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.model.ln_final.weight"], "Stable Diffusion 2"),
    (["control_model.input_blocks.0.0.weight"], "ControlNet"),
    (["emb_params"], "embedding"), (["decoder.up.0.block.0.conv1.weight", "encoder.conv_in.weight"], "VAE alone"),
    (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "upscaler"),
    (["text_model.encoder.layers.0.mlp.fc1.weight"], "text encoder"),
    (["what.ever"], "no architecture known"), ([], "no tensors"),
])
def test_what_no_family_knows_is_named(names, seems):
    with pytest.raises(InvalidModel, match=seems):
        detect(header(*names))


def test_full_size_file_is_detected_from_its_header():
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in unet_shapes((320, 640, 1280, 1280), 768, 2)}
    shapes |= {f"cond_stage_model.transformer.text_model.{name}": shape for name, shape in clip_shapes(768, 12)}
    shapes |= {f"first_stage_model.{name}": shape for name, shape in vae_shapes((128, 256, 512, 512), 2)}
    family, variant = detect(header(**shapes))
    assert (family.id, variant.name, variant.prediction, variant.default_size) == ("sd15", "base", "epsilon", 512)
    assert variant.components["text_encoder"]["num_attention_heads"] == 12


def test_an_unevenly_cut_denoiser_is_refused():
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in unet_shapes()
              if not name.startswith("output_blocks.3.1.transformer_blocks.0.")}
    with pytest.raises(InvalidModel, match="made smaller"):
        detect(header(**shapes))


def test_a_foreign_pipeline_is_named():
    folder = Header("x", "diffusers", {}, components={"transformer": Component("FluxTransformer2DModel", {}, {}, ())},
                    index={"_class_name": "FluxPipeline"})
    with pytest.raises(InvalidModel, match="FluxPipeline"):
        detect(folder)


def test_families_have_names_of_their_own():
    assert len({family.id for family in FAMILIES}) == len(FAMILIES)


def test_counting_and_detecting_import_neither_torch_nor_its_relatives():
    code = ("import sys; from modules.families import FAMILIES; from modules.library.headers import Header;"
            "FAMILIES[0].vocabulary(Header('', 'safetensors', {})).encode('a cat');"
            "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'numpy')))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
