import math

import pytest
import torch

from modules.upscaling.faces.retinaface import RetinaFace, anchors, placed_boxes, placed_landmarks
from tests.upscaling.faces.small import retinaface, seeded, waves

# What facexlib's network on torchvision's ResNet makes of the same weights and picture, at eight places each.
PUBLISHED = (
    [0.545949, 0.017822, 0.987906, 1.0, 0.994344, 0.043461, 1.0, 1.0],
    [3.023589, 9.453102, -3.754275, 1.501077, -0.950822, 27.306444, -25.112698, 4.898636],
    [2.841254, -2.67726, 14.027598, -4.977977, -8.359185, -29.521347, 14.36146, 29.301306],
)


def test_it_computes_what_the_published_network_does():
    state = seeded(retinaface(64, 68))
    network = RetinaFace(state)
    network.load_state_dict(state, strict=False)
    with torch.inference_mode():
        found = network.eval()(waves(72)[:, :, :56] * 100)
    assert [part.shape for part in found] == [(1, 178), (1, 178, 4), (1, 178, 10)]
    for part, published in zip(found, PUBLISHED, strict=True):
        values = part.flatten()[::part.numel() // 8][:8]
        torch.testing.assert_close(values, torch.tensor(published), atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("width, height", [(64, 32), (413, 331)])
def test_anchors_are_in_the_middle_of_places_of_three_levels(width, height):
    expected = [((x + 0.5) * step, (y + 0.5) * step, side)
                for step, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
                for y in range(math.ceil(height / step)) for x in range(math.ceil(width / step)) for side in sides]
    torch.testing.assert_close(anchors(width, height), torch.tensor(expected))


def test_boxes_and_landmarks_are_placed_as_they_were_encoded():
    """The formulas of the training, in float64: offsets in tenths of a side, sizes as logarithms in fifths."""
    around = anchors(96, 64).double()
    noise = torch.Generator().manual_seed(0)
    corner = torch.rand(len(around), 2, generator=noise, dtype=torch.float64) * 50
    size = torch.rand(len(around), 2, generator=noise, dtype=torch.float64) * 80 + 5
    centre = corner + size / 2
    encoded = torch.cat([(centre - around[:, :2]) / (0.1 * around[:, 2:]), (size / around[:, 2:]).log() / 0.2], 1)
    torch.testing.assert_close(placed_boxes(encoded, around), torch.cat([corner, corner + size], 1))
    points = torch.rand(len(around), 5, 2, generator=noise, dtype=torch.float64) * 90
    encoded = ((points - around[:, None, :2]) / (0.1 * around[:, None, 2:])).reshape(-1, 10)
    torch.testing.assert_close(placed_landmarks(encoded, around), points)
