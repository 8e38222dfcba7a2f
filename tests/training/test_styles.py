import pytest
import torch

from modules.training.styles import STYLES, Duotone


def pixels(*colours):
    """Return one picture [1, 3, 1, n] of colours in 0..255."""
    return torch.tensor(colours).T[None, :, None] / 127.5 - 1


def test_a_duotone_goes_by_luma_from_one_colour_to_the_other():
    style = Duotone(lights=(250, 120, 80), shadows=(10, 20, 30))
    styled = style(pixels((0, 0, 0), (255, 255, 255), (51, 51, 51)))
    black, white, grey = styled[0, :, 0].T.add(1).mul(127.5)
    assert torch.allclose(black, torch.tensor([10.0, 20, 30]), atol=1e-3)
    assert torch.allclose(white, torch.tensor([250.0, 120, 80]), atol=1e-3)
    assert torch.allclose(grey, torch.tensor([58.0, 40, 40]), atol=1e-3)


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_deterministic_and_keeps_shape_and_range(name, source):
    picture = torch.rand(2, 3, 8, 8, generator=source) * 2 - 1
    styled = STYLES[name](picture)
    assert styled.shape == picture.shape and float(styled.abs().max()) <= 1
    assert torch.equal(styled, STYLES[name](picture.clone()))
    assert (name == "plain") == torch.equal(styled, picture)


def test_gamma_brings_light_tones_out():
    given = pixels((191, 191, 191))
    plain, raised = (
        Duotone((0, 0, 0), (255, 255, 255), gamma)(given).add(1).mul(127.5) for gamma in (1.0, 0.5)
    )
    assert torch.allclose(plain, torch.full_like(plain, 64), atol=1e-3)
    assert torch.allclose(raised, torch.full_like(plain, 255 * (64 / 255) ** 0.5), atol=1e-3)
