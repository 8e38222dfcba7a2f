import colorsys

import pytest
import torch

from modules.training import compose
from modules.training.compose import GROUNDS, NATURAL, OBJECTS


def block(colour, size=32):
    """A square of one colour in the middle half of a transparent picture."""
    rgba = torch.zeros(1, 4, size, size, dtype=torch.uint8)
    quarter = size // 4
    rgba[0, :3] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    rgba[0, 3, quarter:-quarter, quarter:-quarter] = 255
    return rgba


def test_composition_is_the_over_operator():
    rgba = block((255, 0, 0))
    rgba[0, 3, 16, 16] = 51  # 20 %
    out = compose.compose(rgba, torch.tensor([[0.0, 0.5, 1.0]]), torch.full((1, 3), torch.nan))
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.allclose(out[0, :, 10, 10], torch.tensor([1.0, -1.0, -1.0]))
    mixed = 0.2 * torch.tensor([1.0, 0.0, 0.0]) + 0.8 * torch.tensor([0.0, 0.5, 1.0])
    assert torch.allclose(out[0, :, 16, 16], mixed * 2 - 1, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_tint_gives_every_shade_the_hue_asked_for(name):
    grey = torch.linspace(0.05, 0.9, 8).expand(1, 3, 1, 8)
    tinted = compose.tint(grey, compose.colour_rows([name], OBJECTS))
    wanted = colorsys.rgb_to_hls(*(c / 255 for c in OBJECTS[name]))[0]
    for pixel in tinted[0, :, 0].T.tolist():
        hue = colorsys.rgb_to_hls(*pixel)[0]
        assert abs((hue - wanted + 0.5) % 1 - 0.5) < 0.01
    assert bool((tinted.sum(1).diff() > 0).all())


def test_natural_colours_stay():
    rgb = torch.rand(2, 3, 4, 4)
    rows = compose.colour_rows([NATURAL, "blue"], OBJECTS)
    tinted = compose.tint(rgb, rows)
    assert torch.equal(tinted[0], rgb[0]) and not torch.allclose(tinted[1], rgb[1])


def test_a_full_size_object_is_not_resampled():
    layer = torch.rand(1, 4, 8, 8)
    assert compose.place(layer, torch.ones(1), torch.zeros(1, 2)) is layer


def test_a_small_object_keeps_its_mass_and_moves_where_asked():
    alpha = compose.place(block((255, 0, 0)).float() / 255, torch.tensor([0.5]), torch.tensor([[0.5, -0.5]]))[0, 3]
    assert alpha.sum() == pytest.approx(16 * 16 / 4, rel=0.05)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    assert float((alpha * columns).sum() / alpha.sum()) == pytest.approx(23.5, abs=0.5)
    assert float((alpha * rows).sum() / alpha.sum()) == pytest.approx(7.5, abs=0.5)


def test_the_names_of_grounds_and_objects_are_apart():
    for table in (GROUNDS, OBJECTS):
        colours = torch.tensor(list(table.values())).float()
        distances = torch.cdist(colours, colours) + 1e3 * torch.eye(len(colours))
        assert distances.min() > 60
