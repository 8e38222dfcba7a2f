"""A diffusion model that makes pictures larger, against diffusers' own pipeline on the same tensors."""

import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from modules.core.errors import Interrupted, InvalidModel, OutOfMemory
from modules.core.settings import Settings, with_values
from modules.families import detect
from modules.families.x4_upscaler import X4Upscaler
from modules.imaging.upscalers import Occasion
from modules.library.headers import read_header
from modules.sampling.noise import picture_noise
from modules.upscaling.diffusion import DiffusionUpscaler, padded, said
from modules.upscaling.pixels import Picture
from modules.upscaling.upscaler import NetworkUpscaler
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_x4 import SCHEDULE, write_tiny_x4
from tests.upscaling.small import compact, picture, shelf_of

FEW = with_values(Settings(), {"x4_upscaler_steps": 2, "x4_upscaler_tile": 64})
ONE = dataclasses.replace(FEW, x4_upscaler_steps=1, x4_upscaler_guidance=1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("installation")
    write_tiny_x4(root / "models/ESRGAN/x4 tiny.safetensors")
    write_tiny_x4(root / "models/ESRGAN/x4 folder", "diffusers")
    return root


@pytest.fixture(scope="module")
def upscalers(root):
    return shelf_of(root, double=compact(2))


@pytest.fixture
def x4(upscalers):
    return upscalers["x4 tiny"].told(Occasion(FEW, "a cat", "a dog", 5))


def made(upscaler, width, height, scale=4):
    return upscaler.enlarged(Picture(picture(width, height)), (width * scale, height * scale)).pixels


class SameNoise(diffusers.DDPMScheduler):
    """Puts given noise on the small picture; the pipeline would draw its own."""

    def add_noise(self, original_samples, noise, timesteps):
        return super().add_noise(original_samples, self.given, timesteps)


@pytest.mark.parametrize(("name", "guidance"), [("x4 tiny", 5.0), ("x4 folder", 5.0), ("x4 tiny", 1.0)])
def test_a_tile_is_what_diffusers_pipeline_makes_of_it(root, upscalers, name, guidance):
    pipe = diffusers.StableDiffusionUpscalePipeline.from_pretrained(root / "models/ESRGAN/x4 folder",
                                                                    local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace",
                                                      prediction_type="v_prediction")
    noise = picture_noise((7, 16, 24), [5])
    pipe.low_res_scheduler = SameNoise(**SCHEDULE)
    pipe.low_res_scheduler.given = noise[:, 4:]
    small = torch.from_numpy(picture(24, 16).transpose(2, 0, 1).copy())[None] / 255
    theirs = pipe("a white cat", small, num_inference_steps=10, guidance_scale=guidance, noise_level=30,
                  negative_prompt="a dog", latents=noise[:, :4], output_type="np").images[0]
    settings = with_values(Settings(), {"x4_upscaler_steps": 10, "x4_upscaler_noise_level": 30,
                                        "x4_upscaler_guidance": guidance})
    told = upscalers[name].told(Occasion(settings, "a white cat", "a dog", 5))
    drawing = dataclasses.replace(told, sampler="Euler", schedule="Automatic").drawing(24, 16)
    ours = drawing.counted(1)(small[0].permute(1, 2, 0).numpy(), 0, 0)
    assert theirs.shape == ours.shape == (64, 96, 3)
    assert np.abs(ours - theirs).max() < 1e-4 and theirs.std() > 0.01


@pytest.mark.parametrize(("width", "height", "scale"), [(21, 13, 4), (20, 12, 3), (8, 5, 8)])
def test_any_size_becomes_any_other(x4, width, height, scale):
    x4 = x4.told(Occasion(ONE))
    assert made(x4, width, height, scale).shape == (height * scale, width * scale, 3)


def test_alpha_and_sixteen_bits_stay(x4):
    pixels = picture(16, 8, dtype=np.uint16)
    result = x4.told(Occasion(ONE)).enlarged(Picture(pixels, pixels[:, :, :1]), (64, 32))
    assert result.pixels.dtype == np.uint16 and result.alpha.shape == (32, 64, 1)
    assert x4.told(Occasion(ONE)).upscale(Image.new("RGBA", (8, 8)), 32, 32).mode == "RGBA"


def test_the_seed_and_what_is_said_decide(x4):
    first = made(x4, 16, 8)
    np.testing.assert_array_equal(made(x4, 16, 8), first)
    others = [dataclasses.replace(x4.occasion, seed=6), dataclasses.replace(x4.occasion, prompt="a tree"),
              dataclasses.replace(x4.occasion, settings=with_values(FEW, {"x4_upscaler_noise_level": 200}))]
    assert all((made(x4.told(one), 16, 8) != first).any() for one in others)
    unsaid = with_values(FEW, {"x4_upscaler_use_prompt": False})
    silent = [made(x4.told(Occasion(unsaid, prompt, seed=5)), 16, 8) for prompt in ("a cat", "a tree")]
    np.testing.assert_array_equal(*silent)


def test_long_prompts_are_understood(x4):
    told = x4.told(Occasion(FEW, "a cat, " * 60 + "<lora:some:1>", "a dog"))
    assert [len(one.context) for one in told.drawing(8, 8).conds] == [231, 77]


def test_tiles_begin_from_the_same_noise_where_they_overlap(x4, monkeypatch):
    seen, concat = [], X4Upscaler.concat

    def watched(self, model, condition):
        seen.append(condition)
        return concat(self, model, condition)

    monkeypatch.setattr(X4Upscaler, "concat", watched)
    made(x4.told(Occasion(ONE)), 96, 16)
    left, right = seen
    assert left.pixels.shape == (1, 3, 16, 64)
    assert torch.equal(left.noise[..., 32:], right.noise[..., :32])
    assert torch.equal(left.pixels[..., 32:], right.pixels[..., :32])


def test_each_call_of_the_denoiser_is_told_and_can_be_the_last(x4):
    told = []
    made(x4.told(Occasion(FEW, advance=lambda *step: told.append(step))), 96, 16)
    assert told == [(done, 4) for done in range(5)]

    def stop(done, total):
        if done == 1:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        made(x4.told(Occasion(FEW, advance=stop)), 96, 16)


def test_tiles_are_halved_until_memory_suffices(x4, monkeypatch):
    widths, decode = [], X4Upscaler.decode

    def short_of_memory(self, model, latents, tiled=False):
        widths.append(latents.shape[-1])
        if latents.shape[-1] > 64:
            raise torch.OutOfMemoryError
        return decode(self, model, latents, tiled)

    monkeypatch.setattr(X4Upscaler, "decode", short_of_memory)
    told = x4.told(Occasion(dataclasses.replace(ONE, x4_upscaler_tile=120)))
    assert made(told, 120, 8).shape == (32, 480, 3)
    assert widths[:2] == [120, 64]

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(X4Upscaler, "decode", no_memory)
    with pytest.raises(OutOfMemory, match="x4 tiny.*120x8"):
        made(told, 120, 8)


def test_files_are_told_apart_by_their_headers(tmp_path):
    write_tiny_x4(tmp_path / "models/Stable-diffusion/x4-upscaler-ema.safetensors")
    write_tiny_sd1(tmp_path / "models/Stable-diffusion/sd1.safetensors")
    write_tiny_sd1(tmp_path / "models/Stable-diffusion/upscalers love it.safetensors")
    upscalers = shelf_of(tmp_path, double=compact(2))
    (tmp_path / "models/ESRGAN/broken.safetensors").write_bytes(b"x" * 40)
    assert {"x4-upscaler-ema", "upscalers love it", "double", "broken"} <= set(upscalers)
    assert "sd1" not in upscalers
    assert isinstance(upscalers["x4-upscaler-ema"], DiffusionUpscaler)
    for name in ("double", "broken", "upscalers love it"):
        assert isinstance(upscalers[name], NetworkUpscaler)
    with pytest.raises(InvalidModel, match="upscalers love it.safetensors is no upscaler"):
        upscalers["upscalers love it"].upscale(Image.new("RGB", (8, 8)), 16, 16)


def test_one_file_is_loaded_once(x4):
    made(x4.told(Occasion(ONE)), 8, 8)
    before = x4.shelf.models.keys()
    made(x4.told(Occasion(ONE)), 8, 8)
    assert x4.shelf.models.keys() == before
    assert detect(read_header(x4.file.path))[1].role == before[-1][0] == "upscaler"


@pytest.mark.parametrize(("prompt", "text"), [
    ("a (white:1.2) cat", "a (white:1.2) cat"), ("[a:b:0.5] cat<lora:x:1>", "b cat"),
    ("a cat AND a dog:0.5", "a cat, a dog"), ("", ""), ("a # note\nb", "a \nb"),
])
def test_what_a_prompt_says_in_the_end(prompt, text):
    assert said(prompt) == text


def test_a_tile_is_filled_up_to_what_the_denoiser_halves():
    one = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert padded(one).shape == (1, 1, 8, 8) and float(padded(one)[0, 0, -1, -1]) == 14
    assert torch.equal(padded(one)[..., :3, :5], one)
