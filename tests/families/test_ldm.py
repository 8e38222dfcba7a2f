import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as reference

from modules.families import ldm
from tests.fixtures import tiny_sdxl
from tests.fixtures.tiny_models import clip_shapes, tiny_sd1, unet_shapes, vae_shapes

SD1_UNET = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}
XL = {
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "layers_per_block": 2,
}
# The configurations that diffusers publishes, and the number of parameters of the published denoisers.
PUBLISHED = {
    "sd2": ({"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
             "block_out_channels": (320, 640, 1280, 1280)}, 865_910_724),
    "sdxl": ({**XL, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
              "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10),
              "projection_class_embeddings_input_dim": 2816,
              "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
              "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}, 2_567_463_684),
    "refiner": ({**XL, "block_out_channels": (384, 768, 1536, 1536), "cross_attention_dim": 1280,
                 "attention_head_dim": (6, 12, 24, 24), "transformer_layers_per_block": 4,
                 "projection_class_embeddings_input_dim": 2560,
                 "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                 "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")},
                2_259_526_660),
}
SD1_VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def on_meta(build):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def squeezed(shapes):
    return {name: tuple(side for side in shape if side != 1) for name, shape in shapes.items()}


def test_full_size_unet_is_read_off_its_shapes():
    shapes = dict(unet_shapes((320, 640, 1280, 1280), 768, 2))
    config = ldm.unet_config(shapes)
    assert config["block_out_channels"] == (320, 640, 1280, 1280)
    assert config["layers_per_block"] == 2 and config["cross_attention_dim"] == 768
    assert config["down_block_types"] == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    # 859.52 million parameters is the published size of Stable Diffusion 1's denoiser.
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 859_520_964
    expected = on_meta(lambda: UNet2DConditionModel(**SD1_UNET))
    modules = ldm.unet_modules(config)
    assert {name: shapes[ldm.rename(name, modules)] for name in expected} == expected


def full_size(kind):
    if kind == "sd2":
        return dict(unet_shapes((320, 640, 1280, 1280), 1024, 2, linear=True))
    sizes, context = {"sdxl": (tiny_sdxl.FULL, 2048), "refiner": (tiny_sdxl.FULL_REFINER, 1280)}[kind]
    return dict(tiny_sdxl.unet_shapes(sizes, context))


@pytest.mark.parametrize("kind", PUBLISHED)
def test_successors_are_read_off_their_shapes(kind):
    shapes, (published, parameters) = full_size(kind), PUBLISHED[kind]
    config, modules = ldm.unet_config(shapes), ldm.unet_modules(ldm.unet_config(shapes))
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters
    expected = on_meta(lambda: UNet2DConditionModel(**published))
    assert on_meta(lambda: UNet2DConditionModel.from_config(config)) == expected
    assert {name: shapes[ldm.rename(name, modules)] for name in expected} == expected
    assert {ldm.rename(name, modules) for name in expected} == set(shapes)
    assert config["attention_head_dim"] == published["attention_head_dim"]


@pytest.mark.parametrize("sizes", [tiny_sdxl.BASE, tiny_sdxl.INPAINT, tiny_sdxl.REFINER])
def test_sdxl_names_are_those_of_diffusers_converter(sizes):
    shapes = dict(tiny_sdxl.unet_shapes(sizes, 64))
    config = ldm.unet_config(shapes)
    converted = reference.convert_ldm_unet_checkpoint({ldm.UNET_PREFIX + name: name for name in shapes}, config)
    modules = ldm.unet_modules(config)
    assert {name: ldm.rename(name, modules) for name in converted} == converted
    assert set(converted.values()) == set(shapes)


def test_kinds_of_labels_are_told_apart():
    plain = dict(unet_shapes((32, 64), 16, linear=True))
    label = {"label_emb.0.0.weight": (128, 320), "label_emb.0.2.weight": (128, 128)}
    assert ldm.unet_config(plain | label)["class_embed_type"] == "projection"
    assert ldm.unet_config(plain | {"label_emb.weight": (1000, 128)})["num_class_embeds"] == 1000
    full = dict(tiny_sdxl.unet_shapes(tiny_sdxl.FULL, 2048))
    xl = ldm.unet_config(full)
    assert (xl["addition_embed_type"], xl["addition_time_embed_dim"]) == ("text_time", 256)
    assert xl["projection_class_embeddings_input_dim"] == 1280 + 6 * 256


def test_full_size_vae_is_read_off_its_shapes():
    shapes = dict(vae_shapes((128, 256, 512, 512), 2))
    config = ldm.vae_config(shapes)
    expected = on_meta(lambda: AutoencoderKL(**SD1_VAE))
    assert on_meta(lambda: AutoencoderKL(**config)) == expected
    modules = ldm.vae_modules(config)
    assert squeezed({name: shapes[ldm.rename(name, modules)] for name in expected}) == squeezed(expected)
    assert {ldm.rename(name, modules) for name in expected} == set(shapes)


def test_unet_names_are_those_of_diffusers_converter():
    for widths, layers in (((32, 64, 64, 64), 1), ((32, 64), 2), ((32, 32, 64), 3)):
        named = {f"model.diffusion_model.{name}": name for name, _ in unet_shapes(widths, 16, layers)}
        config = ldm.unet_config(dict(unet_shapes(widths, 16, layers)))
        converted = reference.convert_ldm_unet_checkpoint(dict(named), config)
        modules = ldm.unet_modules(config)
        assert {name: ldm.rename(name, modules) for name in converted} == converted
        assert set(converted.values()) == set(named.values())


def test_autoencoder_tensors_are_those_of_diffusers_converter():
    tensors = tiny_sd1()
    own = {name.removeprefix(ldm.VAE_PREFIX): value for name, value in tensors.items() if ldm.VAE_PREFIX in name}
    config = ldm.vae_config({name: tuple(value.shape) for name, value in own.items()})
    converted = reference.convert_ldm_vae_checkpoint(tensors, config)
    modules = ldm.vae_modules(config)
    assert len(converted) == len(own)
    for name, value in converted.items():
        assert torch.equal(value, own[ldm.rename(name, modules)].reshape(value.shape)), name


def test_diffusers_layout_of_an_autoencoder_gives_the_same_configuration():
    config = ldm.vae_config(dict(vae_shapes((32, 64, 64), 2, 8)))
    shapes = on_meta(lambda: AutoencoderKL(**config))
    assert ldm.is_diffusers(shapes)
    assert ldm.vae_config(shapes) == config


def test_clip_is_read_off_its_shapes():
    config = ldm.clip_config(dict(clip_shapes(768, 12)))
    assert (config["num_attention_heads"], config["num_hidden_layers"], config["intermediate_size"]) == (12, 12, 3072)
    assert (config["vocab_size"], config["eos_token_id"], config["max_position_embeddings"]) == (49408, 49407, 77)


def test_rename_takes_the_longest_known_path():
    modules = {"a": "x", "a.b": "y"}
    assert [ldm.rename(name, modules) for name in ("a.b.weight", "a.c.weight", "ab.weight")] == [
        "y.weight", "x.c.weight", "ab.weight",
    ]
