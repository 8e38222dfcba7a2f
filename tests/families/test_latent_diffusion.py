"""Denoisers that take more than a noisy latent, against diffusers' classes and pipelines on the same tensors."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file

from modules.core.settings import Settings
from modules.families import detect
from modules.families.base import ImageCondition, ModelInput
from modules.library.headers import read_header
from tests.families.conftest import load, relative
from tests.fixtures.tiny_models import TAKEN, UNET_WIDTHS, VAE_WIDTHS, write_tiny_sd1

UNET = {
    "block_out_channels": UNET_WIDTHS, "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8,
}
VAE = {
    "block_out_channels": VAE_WIDTHS, "layers_per_block": 1, "latent_channels": 4, "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SUFFIX = {"safetensors": ".safetensors", "diffusers": ""}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return {(takes, layout): write_tiny_sd1(folder / f"{takes}{suffix}", layout, takes=takes)
            for takes in ("inpaint", "edit") for layout, suffix in SUFFIX.items()}


@pytest.fixture(scope="module")
def tensors(paths):
    return {takes: load_file(paths[takes, "safetensors"]) for takes in ("inpaint", "edit")}


def unet(tensors, takes):
    model = UNet2DConditionModel(**UNET, in_channels=TAKEN[takes])
    model.load_state_dict(single_file_utils.convert_ldm_unet_checkpoint(dict(tensors[takes]), dict(model.config)))
    return model.eval()


def vae(tensors, takes):
    model = AutoencoderKL(**VAE)
    model.load_state_dict(single_file_utils.convert_ldm_vae_checkpoint(dict(tensors[takes]), dict(model.config)))
    return model.eval()


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def mask():
    shape = torch.zeros(1, 1, 64, 48)
    shape[..., 20:50, 8:30] = 1
    return shape


@pytest.mark.parametrize("layout", SUFFIX)
@pytest.mark.parametrize("takes", ["inpaint", "edit"])
def test_variants_are_detected_and_run_as_diffusers_runs_them(paths, tensors, takes, layout):
    family, model = load(paths[takes, layout])
    variant = model.variant
    assert (family.id, variant.takes, variant.name, variant.role) == ("sd15", takes, takes, "base")
    x, context = random(2, 4, 8, 6), random(2, 77, 32, seed=1)
    # One picture for both rows.
    concat = random(1, TAKEN[takes] - 4, 8, 6, seed=2)
    with torch.no_grad():
        expected = unet(tensors, takes)(torch.cat([x, concat.expand(2, -1, -1, -1)], dim=1), 321.0, context).sample
    ours = family.call(model, ModelInput(x, 1.0, 321.0, 0, context, ("cond", "uncond"), (0, 0), concat=concat))
    assert relative(ours, expected) < 1e-4


@pytest.mark.parametrize("layout", SUFFIX)
def test_inpainting_channels_are_those_of_diffusers_pipeline(paths, tensors, layout):
    family, model = load(paths["inpaint", layout])
    pixels = random(1, 3, 64, 48)
    autoencoder = vae(tensors, "inpaint")
    pipeline = SimpleNamespace(
        vae_scale_factor=8, vae=autoencoder,
        _encode_vae_image=lambda image, generator: autoencoder.encode(image).latent_dist.mean * 0.18215,
    )
    masked = (pixels * 2 - 1) * (mask() < 0.5)
    with torch.no_grad():
        expected = torch.cat(StableDiffusionInpaintPipeline.prepare_mask_latents(
            pipeline, mask(), masked, 1, 64, 48, torch.float32, "cpu", None, False), dim=1)
    ours = family.concat(model, ImageCondition(48, 64, pixels, mask()))
    assert ours.shape == (1, 5, 8, 6) and ours.dtype == torch.float32
    assert relative(ours, expected) < 1e-4


def test_inpainting_text_to_image_is_grey_under_a_full_mask(paths, tensors):
    family, model = load(paths["inpaint", "safetensors"])
    with torch.no_grad():
        grey = vae(tensors, "inpaint").encode(torch.zeros(1, 3, 64, 48)).latent_dist.mean * 0.18215
    ours = family.concat(model, ImageCondition(48, 64))
    assert torch.equal(ours[:, :1], torch.ones(1, 1, 8, 6)) and relative(ours[:, 1:], grey) < 1e-4


@pytest.mark.parametrize("layout", SUFFIX)
def test_the_picture_to_edit_is_that_of_diffusers_pipeline(paths, tensors, layout):
    family, model = load(paths["edit", layout])
    pixels = random(1, 3, 64, 48)
    pipeline = SimpleNamespace(vae=vae(tensors, "edit"))
    with torch.no_grad():
        expected = StableDiffusionInstructPix2PixPipeline.prepare_image_latents(
            pipeline, pixels * 2 - 1, 1, 1, torch.float32, "cpu", False)
    assert relative(family.concat(model, ImageCondition(48, 64, pixels)), expected) < 1e-4
    assert torch.equal(family.concat(model, ImageCondition(48, 64)), torch.zeros(1, 4, 8, 6))


def test_a_plain_model_takes_nothing_more(tiny):
    family, model = tiny
    assert family.concat(model, ImageCondition(48, 64, random(1, 3, 64, 48), mask())) is None
    assert family.micro_conditioning(model, "cond", 48, 64, Settings()) == ()


@pytest.mark.parametrize("takes", ["inpaint", "edit"])
def test_variants_end_in_pure_noise_where_marked(tmp_path, paths, takes):
    """A yaml beside the file says v prediction, as it did before there were markers."""
    path = tmp_path / "model.safetensors"
    path.symlink_to(paths[takes, "safetensors"])
    (tmp_path / "model.yaml").write_text("model:\n  target: x\n  params:\n    parameterization: v\n")
    variant = detect(read_header(path))[1]
    assert (variant.prediction, variant.takes, variant.default_size) == ("v_prediction", takes, 512)
