"""The x4 upscaler against diffusers, whose folder diffusers' own converters made of the same tensors."""

import dataclasses

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionUpscalePipeline

from modules.core.errors import InvalidModel, InvalidRequest
from modules.core.settings import Settings, setting_infos
from modules.families import detect
from modules.families.base import ImageCondition, LatentFormat, ModelInput
from modules.families.x4_upscaler import MAX_NOISE_LEVEL
from modules.library.headers import Header, TensorInfo, read_header
from tests.families.conftest import load, relative
from tests.fixtures.tiny_models import unet_shapes, vae_shapes
from tests.fixtures.tiny_sdxl import open_clip_shapes
from tests.fixtures.tiny_x4 import ATTENTIONS, SCHEDULE, TEXT, UNET, VAE, tiny_x4, write_tiny_x4

SUFFIX = {"safetensors": ".safetensors", "diffusers": ""}
LAYOUTS = pytest.mark.parametrize("layout", SUFFIX)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("x4")
    return {layout: write_tiny_x4(folder / f"x4{suffix}", layout) for layout, suffix in SUFFIX.items()}


@pytest.fixture(scope="module")
def reference(paths):
    return StableDiffusionUpscalePipeline.from_pretrained(paths["diffusers"], local_files_only=True)


@pytest.fixture(scope="module")
def models(paths):
    return {layout: load(path) for layout, path in paths.items()}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noised(family, model, level=20):
    pixels, noise = random(1, 3, 16, 24, seed=3).sigmoid(), random(1, 3, 16, 24, seed=4)
    ours = family.concat(model, ImageCondition(96, 64, pixels, noise=noise, noise_level=level))
    theirs = DDPMScheduler(**SCHEDULE).add_noise(pixels * 2 - 1, noise, torch.tensor([level]))
    return ours, theirs


@LAYOUTS
class TestAgainstDiffusers:
    def test_it_is_recognised(self, models, layout):
        family, model = models[layout]
        variant = model.variant
        assert (family.id, variant.role, variant.takes) == ("x4_upscaler", "upscaler", "low_res")
        assert (variant.prediction, variant.default_size) == ("v_prediction", 512)
        assert (variant.latent.channels, variant.latent.factor) == (4, 4)

    def test_noise_levels(self, models, layout):
        family, model = models[layout]
        shares = DDPMScheduler(**SCHEDULE).alphas_cumprod
        space = family.space(model)
        assert space.prediction == "v_prediction"
        assert relative(torch.tensor(space.alphas_cumprod), shares) < 1e-5

    def test_conditioning(self, models, reference, layout):
        family, model = models[layout]
        with torch.no_grad():
            expected = torch.cat(reference.encode_prompt("a white cat", "cpu", 1, True, ""))
        ours = torch.stack([one.context for one in family.encode(model, ["a white cat", ""], Settings())])
        assert relative(ours, expected) < 1e-4

    @pytest.mark.parametrize("level", [0, 20, 350])
    def test_the_small_picture_is_noised(self, models, layout, level):
        ours, theirs = noised(*models[layout], level)
        assert relative(ours, theirs) < 1e-5

    @pytest.mark.parametrize(("timestep", "level"), [(999.0, 20), (3.0, 300)])
    def test_denoiser(self, models, reference, layout, timestep, level):
        family, model = models[layout]
        x, context, concat = random(2, 4, 16, 24), random(2, 77, 128, seed=1), random(1, 3, 16, 24, seed=2)
        levels = torch.tensor([level, level])
        with torch.no_grad():
            expected = reference.unet(torch.cat([x, concat.expand(2, -1, -1, -1)], 1), timestep, context,
                                      class_labels=levels).sample
        inputs = ModelInput(x, 1.0, timestep, 0, context, ("cond",) * 2, (0, 0), concat=concat,
                            added={"noise_level": levels})
        assert relative(family.call(model, inputs), expected) < 1e-4

    def test_decode(self, models, reference, layout):
        family, model = models[layout]
        with torch.no_grad():
            expected = reference.vae.decode(random(1, 4, 8, 8) / 0.08333).sample
        ours = family.decode(model, random(1, 4, 8, 8))
        assert ours.shape == (1, 3, 32, 32) and relative(ours, (expected / 2 + 0.5).clamp(0, 1)) < 1e-4


def test_there_is_nothing_to_make_larger_in_text_to_image(models):
    family, model = models["safetensors"]
    with pytest.raises(InvalidRequest, match="makes a picture larger"):
        family.concat(model, ImageCondition(64, 64))


def test_full_size_file_is_detected_from_its_header():
    unet = unet_shapes((256, 512, 512, 1024), 1024, 2, 7, linear=True, attentions=ATTENTIONS)
    shapes = {**{UNET + name: shape for name, shape in unet}, f"{UNET}label_emb.weight": (1000, 1024),
              **{TEXT + name: shape for name, shape in open_clip_shapes(1024, 24)},
              **{VAE + name: shape for name, shape in vae_shapes((128, 256, 512), 2)}}
    family, variant = detect(Header("", "safetensors", {name: TensorInfo("F16", shape)
                                                        for name, shape in shapes.items()}))
    unet = variant.components["unet"]
    assert (family.id, variant.latent) == ("x4_upscaler", LatentFormat(4, 4))
    assert (unet["only_cross_attention"], unet["attention_head_dim"]) == ((False, True, True, False), 8)
    assert unet["num_class_embeds"] == 1000 and variant.components["vae"]["scaling_factor"] == 0.08333


def test_one_without_its_autoencoder_says_so(tmp_path, paths):
    header = read_header(paths["safetensors"])
    tensors = {name: info for name, info in header.tensors.items() if not name.startswith(VAE)}
    family, variant = detect(Header(header.path, header.layout, tensors))
    assert "vae" not in variant.components and family.id == "x4_upscaler"
    shapes = {name: tuple(value.shape) for name, value in tiny_x4().items()}
    del shapes[f"{UNET}input_blocks.0.0.weight"]
    with pytest.raises(InvalidModel, match="a part of Stable Diffusion 2's x4 upscaler"):
        detect(Header("", "safetensors", {name: TensorInfo("F16", shape) for name, shape in shapes.items()}))


def test_levels_reach_as_far_as_the_setting():
    assert setting_infos()["x4_upscaler_noise_level"].maximum == MAX_NOISE_LEVEL


@pytest.mark.parametrize(("part", "name", "value", "said"), [
    ("unet", "num_class_embeds", 350, "knows 350 levels"), ("unet", "num_class_embeds", "many", "damaged"),
    ("low_res_scheduler", "num_train_timesteps", 20, "knows 20 levels"),
    ("low_res_scheduler", "num_train_timesteps", None, "damaged"),
])
def test_a_folder_that_knows_too_few_levels_of_noise_is_refused(paths, part, name, value, said):
    header = read_header(paths["diffusers"])
    changed = dataclasses.replace(header.components[part], config={**header.components[part].config, name: value})
    with pytest.raises(InvalidModel, match=said):
        detect(dataclasses.replace(header, components={**header.components, part: changed}))


def test_a_file_that_knows_too_few_levels_of_noise_is_refused(paths):
    header, name = read_header(paths["safetensors"]), f"{UNET}label_emb.weight"
    table = TensorInfo("F32", (100, header.tensors[name].shape[1]))
    with pytest.raises(InvalidModel, match="knows 100 levels"):
        detect(dataclasses.replace(header, tensors={**header.tensors, name: table}))
