"""Whole generations agree with diffusers' own pipeline on the same tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.models.attention_processor import AttnProcessor2_0

from modules.engine.engine import Engine
from modules.families import detect
from modules.families.clip_tokenizer import clip_tokenizer
from modules.library.headers import read_header
from modules.plugin import Context, Plugin
from modules.plugin.hooks import Active
from modules.runtime.device import Placement
from modules.sampling.noise import picture_noise
from tests.engine.conftest import REQUEST, Recorder

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Estimates(Plugin):
    """Keeps the last denoised estimate, which for a schedule that ends at sigma 0 is the result."""

    id = "estimates"
    last: Any = None

    def on_step(self, state: Any, params: Any) -> None:
        type(self).last = state.x0


@pytest.fixture(scope="module")
def pipeline(checkpoint: Any) -> Iterator[Any]:
    family, variant = detect(read_header(checkpoint))
    model: Any = family.load(variant, str(checkpoint), None, Placement())
    words = clip_tokenizer()
    tokenizer = transformers.CLIPTokenizer(vocab=dict(words.vocabulary), merges=list(words.ranks), model_max_length=77)
    pipe = diffusers.StableDiffusionPipeline(
        vae=model.modules["vae"], text_encoder=model.modules["text_encoder"], tokenizer=tokenizer,
        unet=plain(model.modules["unet"]), scheduler=diffusers.DDIMScheduler(**SCHEDULE), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    yield pipe


def plain(unet: Any) -> Any:
    """Return the same network with diffusers' own attention."""
    unet.set_attn_processor(AttnProcessor2_0())
    return unet


def images(pipeline: Any, latents: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return (decoded[0].permute(1, 2, 0).numpy().astype(np.float64) / 2 + 0.5).clip(0, 1)


@pytest.mark.parametrize(("sampler", "scheduler", "steps"), [
    # With ten steps every timestep is a whole number, so that no sigma is interpolated.
    ("Euler", diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace"), 10),
    # A1111's DDIM ends at the level of its first timestep, one step before diffusers' does.
    ("DDIM", diffusers.DDIMScheduler(
        **SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"), 9),
])
def test_txt2img_agrees_with_diffusers(
    engine: Engine, pipeline: Any, watch: Recorder, sampler: str, scheduler: Any, steps: int,
) -> None:
    request = dataclasses.replace(REQUEST, sampler=sampler, steps=10, guidance_scale=5.0)
    engine.generate(request, (), watch)
    pipeline.scheduler = scheduler
    latents: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        latents.append(values["latents"])
        return values

    pipeline(
        request.prompt, negative_prompt=request.negative_prompt, num_inference_steps=10, guidance_scale=5.0,
        height=64, width=64, latents=picture_noise((4, 8, 8), [request.seed]), output_type="latent",
        callback_on_step_end=keep,
    )
    theirs = images(pipeline, latents[steps - 1])
    ours = np.asarray(watch.pictures[0].image, dtype=np.float64) / 255
    assert np.abs(ours - theirs).max() <= 0.5 / 255 + 1e-4
    assert theirs.std() > 0.01


def test_euler_latents_agree_to_1e_4(engine: Engine, pipeline: Any, watch: Recorder) -> None:
    request = dataclasses.replace(REQUEST, schedule="Uniform", steps=4, guidance_scale=3.0)
    plugin = Estimates(Context(None, None, {}))  # type: ignore[arg-type]
    engine.generate(request, (Active(plugin, Plugin.Params()),), watch)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace")
    theirs = pipeline(
        request.prompt, negative_prompt=request.negative_prompt, num_inference_steps=4, guidance_scale=3.0,
        height=64, width=64, latents=picture_noise((4, 8, 8), [request.seed]), output_type="latent",
    ).images
    assert torch.linalg.norm(Estimates.last - theirs) <= 1e-4 * torch.linalg.norm(theirs)
