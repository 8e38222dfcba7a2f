import torch

from modules.training import denoiser


def test_shapes_of_the_denoiser_and_its_context(config):
    unet = denoiser.build_unet(config.diffusion, 4, 8)
    text = denoiser.build_text(config.diffusion, 560, 558, 559)
    model = denoiser.Denoiser(unet, text)
    tokens = torch.randint(0, 500, (2, 24))
    assert model.encode(tokens).shape == (2, 24, 32)
    assert model(torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), tokens).shape == (2, 4, 8, 8)


def test_blocks_and_heads_are_as_configured(config):
    unet = denoiser.build_unet(config.diffusion, 4, 8)
    assert unet.config.down_block_types == ("DownBlock2D", "CrossAttnDownBlock2D")
    assert unet.config.up_block_types == ("CrossAttnUpBlock2D", "UpBlock2D")
    assert unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2.heads == 2


def test_the_text_encoder_is_causal(config):
    text = denoiser.build_text(config.diffusion, 560, 558, 559).eval()
    model = denoiser.Denoiser(denoiser.build_unet(config.diffusion, 4, 8), text)
    tokens = torch.randint(0, 500, (1, 24))
    other = tokens.clone()
    other[0, 10:] = 7
    with torch.no_grad():
        assert torch.allclose(model.encode(tokens)[:, :10], model.encode(other)[:, :10], atol=1e-5)
        assert not torch.allclose(model.encode(tokens)[:, 10:], model.encode(other)[:, 10:], atol=1e-3)
