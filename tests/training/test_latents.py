import torch

from modules.training import autoencoder, latents
from modules.training.captions import Scene

CPU = torch.device("cpu")


def test_scenes_are_rendered_as_they_say(data):
    index = next(i for i, entry in enumerate(data.entries) if entry.label == "blue circle")
    scenes = [Scene(index), Scene(index, "red", "black"), Scene(index, small=True, place="at the top")]
    plain, red, small = latents.render(data, scenes, CPU)
    assert (plain[:, 0, 0] == 1).all() and (red[:, 0, 0] < -0.8).all()
    assert plain[2, 8, 8] > plain[0, 8, 8] and red[0, 8, 8] > red[2, 8, 8]
    covered = (small < 0.9).any(0).nonzero()
    assert covered[:, 0].float().mean() < 12 and len(covered) < 300


def test_every_scene_is_encoded_once_in_order(config, data):
    torch.manual_seed(0)
    model = autoencoder.build(config.autoencoder, 32).eval()
    scenes = [Scene(index) for index in range(len(data.entries))]
    found = latents.encode(model, latents.batches(data, scenes, CPU, 4))
    with torch.no_grad():
        wanted = model.encode(latents.render(data, scenes, CPU)).latent_dist.mean
    assert found.dtype == torch.float16 and torch.allclose(found.float(), wanted, atol=2e-3)


def test_standardising_changes_no_picture_and_makes_unit_latents(config, data):
    torch.manual_seed(1)
    model = autoencoder.build(config.autoencoder, 32).eval()
    pixels = autoencoder.fixed_pictures(data.rgba)
    with torch.no_grad():
        before = model.encode(pixels).latent_dist
        wanted = model.decode(before.mean).sample
        scaled = latents.standardise(model, before.mean)
        after = model.encode(pixels).latent_dist
        assert torch.allclose(model.decode(after.mean).sample, wanted, atol=1e-4)
    assert torch.allclose(after.mean * model.config.scaling_factor, scaled, atol=1e-4)
    assert torch.allclose(after.logvar, before.logvar)
    assert scaled.mean((0, 2, 3)).abs().max() < 1e-4
    assert abs(float(scaled.square().mean()) - 1) < 1e-3
