import dataclasses

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from modules.core.errors import InvalidModel
from modules.families.base import LatentFormat
from modules.families.preview import fit_linear, linear, taesd
from modules.families.sd15 import LATENT

# Means of the latents into which TAESD's encoder puts pictures of one colour.
COLOURS = {
    (1.0, 1.0, 1.0): (2.1002, 1.3904, 0.0714, -1.0859),
    (0.0, 0.0, 0.0): (-0.9623, -2.6208, 1.1760, 1.3716),
    (1.0, 0.0, 0.0): (1.1225, -0.6372, -1.7318, 0.7670),
    (0.0, 0.6, 0.0): (0.5557, -0.0304, 2.0796, 1.8983),
    (0.1, 0.2, 0.9): (-0.4131, -2.4447, 1.3465, -1.1312),
}


@pytest.mark.parametrize("colour", COLOURS)
def test_linear_preview_shows_the_colour(colour):
    latents = torch.tensor(COLOURS[colour]).view(1, 4, 1, 1).expand(1, 4, 6, 8)
    shown = linear(latents, LATENT)
    assert shown.shape == (1, 3, 6, 8) and shown.dtype == torch.float32
    assert (shown[0, :, 0, 0] - torch.tensor(colour)).abs().max() < 0.3
    assert int(shown[0, :, 0, 0].argmax()) == colour.index(max(colour)) or len(set(colour)) == 1


def test_fit_finds_a_linear_decoder():
    generator = torch.Generator().manual_seed(3)
    matrix, bias = 0.1 * torch.randn(8, 3, generator=generator), torch.tensor([0.1, -0.1, 0.2])

    def decode(latents):
        mixed = torch.einsum("nchw,cr->nrhw", latents, matrix) + bias[:, None, None]
        return torch.nn.functional.interpolate(mixed, scale_factor=4) / 2 + 0.5

    fitted = fit_linear(decode, LatentFormat(8, 4))
    torch.testing.assert_close(torch.tensor(fitted.rgb), matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(fitted.rgb_bias), bias, atol=1e-4, rtol=1e-4)
    assert dataclasses.replace(fitted, rgb=(), rgb_bias=(0.0, 0.0, 0.0)) == LatentFormat(8, 4)


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return AutoencoderTiny().eval()


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_taesd_agrees_with_diffusers(reference, tmp_path, layout):
    file = tmp_path / "taesd_decoder.safetensors"
    tensors = reference.decoder.state_dict()
    if layout == "original":
        tensors = {f"{int(name.split('.')[1]) + 1}.{name.split('.', 2)[2]}": value for name, value in tensors.items()}
    else:
        tensors = {f"decoder.{name}": value for name, value in tensors.items()}
    save_file(tensors, file)
    latents = 2 * torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = (reference.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    pixels = taesd(str(file))(latents)
    assert pixels.shape == (1, 3, 48, 40)
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)


def test_another_file_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InvalidModel, match="TAESD"):
        taesd(str(tmp_path / "x.safetensors"))
