import torch

from modules.upscaling.faces.parsenet import ParseNet
from tests.upscaling.faces.small import parsenet, seeded, waves

# What facexlib's network makes of the same weights and picture, at every 2432nd value.
PUBLISHED = [-0.261997, -0.588402, 1.087817, -0.204777, -0.994114, 3.140711, -0.11995, -0.88258]


def test_it_computes_what_the_published_network_does():
    state = seeded(parsenet())
    network = ParseNet(state)
    network.load_state_dict(state, strict=False)
    with torch.inference_mode():
        made = network.eval()(waves(32))
    assert made.shape == (1, 19, 32, 32)
    torch.testing.assert_close(made.flatten()[::2432], torch.tensor(PUBLISHED), atol=5e-5, rtol=0)
