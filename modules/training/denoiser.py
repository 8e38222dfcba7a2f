"""The UNet and the text encoder that is trained with it, as one module."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from modules.training.config import DiffusionConfig


class Denoiser(nn.Module):
    """``unet`` and ``text``; ``forward`` predicts from noisy latents, steps [n] and token ids [n, positions]."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text = text

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the context [n, positions, width]: the text encoder's last hidden state, normalised."""
        context: torch.Tensor = self.text(input_ids=tokens).last_hidden_state
        return context

    def forward(self, latents: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(latents, steps, self.encode(tokens)).sample
        return output


def read(folder: Path) -> Denoiser:
    """Return the denoiser and the text encoder of a diffusers folder, in float32."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    return Denoiser(unet.float(), text.float())


def build_unet(config: DiffusionConfig, channels: int, side: int) -> UNet2DConditionModel:
    """Return an untrained UNet for latents [n, channels, side, side].

    ``attention_head_dim`` is the number of heads here, as in every Stable Diffusion configuration.
    """
    down = ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in config.attention]
    up = ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(config.attention)]
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,
    )


def build_text(config: DiffusionConfig, vocabulary: int, start: int, end: int) -> CLIPTextModel:
    """Return an untrained text encoder for ``vocabulary`` tokens, of which ``start`` and ``end`` frame a caption."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            max_position_embeddings=config.positions,
            projection_dim=config.text_width,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
