import pytest
import torch

from modules.upscaling.faces.codeformer import CodeFormer, Layer, Residual, matched
from tests.upscaling.faces.small import SIDE, codeformer, seeded, waves

# What the network of the project's publication makes of the same weights and picture, at every 384th value.
PUBLISHED = {
    0.0: [-0.289165, 0.909403, 0.136314, 0.440244, -0.413508, 1.264369, -0.64962, -0.550215],
    0.7: [-0.274696, 0.533414, -0.477706, -0.246374, -1.05196, 1.433496, -0.401511, -0.422801],
    1.0: [-0.206152, 0.309933, -0.517335, -0.269914, -1.091146, 1.249848, -0.334659, -0.321748],
}


@pytest.fixture(scope="module")
def network():
    state = seeded(codeformer())
    network = CodeFormer(state)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("fidelity", PUBLISHED)
def test_it_computes_what_the_published_network_does(network, fidelity):
    made = network(waves(SIDE), fidelity).flatten()[::384]
    torch.testing.assert_close(made, torch.tensor(PUBLISHED[fidelity]), atol=5e-5, rtol=0)


def test_the_side_of_a_face_follows_from_the_weights(network):
    assert network.side == SIDE
    assert network(waves(SIDE), 0.5).shape == (1, 3, SIDE, SIDE)


def test_faces_of_a_batch_do_not_see_each_other(network):
    one, other = waves(SIDE), waves(SIDE).flip(-1)
    both = network(torch.cat([one, other]), 0.5)
    torch.testing.assert_close(both, torch.cat([network(one, 0.5), network(other, 0.5)]), atol=1e-5, rtol=0)


def test_channels_are_brought_to_mean_and_deviation():
    noise = torch.Generator().manual_seed(0)
    content, style = (torch.randn(2, 5, 16, 16, generator=noise, dtype=torch.float64) * 3 + 1 for _ in range(2))
    made = matched(content, style)
    torch.testing.assert_close(made.mean((2, 3)), style.mean((2, 3)))
    torch.testing.assert_close(made.std((2, 3)), style.std((2, 3)), atol=1e-5, rtol=1e-5)


def test_the_residual_block_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers.models.resnet")
    theirs = diffusers.ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=None, groups=32, eps=1e-6)
    ours = Residual(32, 64)
    ours.load_state_dict({name.replace("conv_shortcut", "conv_out"): weight
                          for name, weight in theirs.state_dict().items()})
    x = waves(16, 32)
    torch.testing.assert_close(ours(x), theirs(x, None))


def test_without_places_a_layer_is_that_of_torch():
    theirs = torch.nn.TransformerEncoderLayer(64, 8, 128, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    ours = Layer(64, 128).eval()
    ours.load_state_dict(theirs.state_dict())
    x = waves(8, 64).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours(x, torch.zeros(64, 64)), theirs(x), atol=1e-5, rtol=0)
    assert not torch.allclose(ours(x, torch.randn(64, 64)), theirs(x), atol=1e-3)
