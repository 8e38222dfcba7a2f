import json

import pytest
import torch
from diffusers import AutoencoderKL

from modules.core.errors import NotFound
from modules.training import stages
from modules.training.stages import Workspace


def test_the_cache_holds_every_scene_with_its_wordings(config, trained, data):
    cache = stages.read_cache(trained)
    assert cache.latents.shape == (27, 4, 8, 8) and cache.latents.dtype == torch.float16
    assert cache.tokens.shape == (27, 2, 24) and cache.empty.shape == (24,)
    assert abs(float(cache.latents.float().square().mean()) - 1) < 1e-2
    assert json.loads((trained.folder / "subjects.json").read_text()) == [entry.label for entry in data.entries]


def test_the_saved_autoencoder_is_the_averaged_and_standardised_one(config, trained):
    saved = AutoencoderKL.from_pretrained(trained.folder / "vae")
    plain = stages.trained_autoencoder(config, trained)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        one = saved.decode(saved.encode(pixels).latent_dist.mean).sample
        other = plain.decode(plain.encode(pixels).latent_dist.mean).sample
    assert torch.allclose(one, other, atol=1e-4) and saved.config.scaling_factor != plain.config.scaling_factor


def test_the_denoiser_can_learn_fewer_pictures_than_the_autoencoder(config, archive):
    import dataclasses

    wanted = dataclasses.replace(config.diffusion, groups=("animals",), labels=("red circle",))
    found = stages.subjects(dataclasses.replace(config, diffusion=wanted), archive)
    assert [entry.label for entry in found.entries if entry.group != "animals"] == ["red circle"]
    assert len(stages.subjects(config, archive).entries) == 9


def test_a_stage_without_the_one_before_says_which(config, archive, tmp_path):
    empty = Workspace(archive, tmp_path, torch.device("cpu"))
    for reader, stage in (
        (lambda: stages.trained_autoencoder(config, empty), "autoencoder"),
        (lambda: stages.read_cache(empty), "latents"),
        (lambda: stages.trained_denoiser(config, empty), "diffusion"),
    ):
        with pytest.raises(NotFound, match=f"stage {stage} first"):
            reader()


def test_a_workspace_knows_when_to_stop(trained):
    limits = trained.limits("diffusion")
    assert limits.stop == trained.folder / "diffusion" / "stop" and not limits.reached(1e9)
