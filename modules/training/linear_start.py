"""A linear start for ``AutoencoderKL``: before the first step it already codes pictures nearly as well as patch PCA.

An untrained convolutional autoencoder spends its first hours on a plateau where shapes are right and colours are
missing. The linear optimum is known in closed form (principal components; Baldi and Hornik 1989), and the standard
architecture can hold it:

- a stride-2 convolution with a 2x2 support gathers the four features below it and projects them on their principal
  components, so three of them are a hierarchical 8x8 patch PCA;
- residual branches start at zero, shortcuts carry the features;
- the closing SiLU is linear on pairs, silu(u) - silu(-u) = u, and the closing GroupNorm nearly so where each group also
  holds a large constant pair that fixes its variance and, by symmetry, its mean;
- on the way up a convolution after nearest upsampling cannot tell even from odd pixels, so each is the least-squares
  solution from its actual input to the encoder's features at that resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

CONSTANT = 32.0
LOG_VARIANCE = -6.0
RIDGE = 1e-5


@dataclass(frozen=True)
class Pairs:
    """Where ``count`` signals live as +/- pairs among ``channels`` in ``groups``, with a constant pair per group."""

    count: int
    channels: int
    groups: int

    def __post_init__(self) -> None:
        if 2 * self.per_group + 2 > self.width:
            raise ValueError(f"{self.channels} channels in {self.groups} groups cannot hold {self.count} pairs.")

    @property
    def width(self) -> int:
        return self.channels // self.groups

    @property
    def per_group(self) -> int:
        return -(-self.count // self.groups)

    def plus(self, signal: int) -> int:
        """Return the channel of +signal; -signal is the next one."""
        return signal // self.per_group * self.width + 2 * (signal % self.per_group)

    def constants(self) -> list[int]:
        """Return the channels of the positive constants; the negative ones are next."""
        return [(group + 1) * self.width - 2 for group in range(self.groups)]


def silence_residuals(model: nn.Module) -> None:
    """Make every residual branch start at zero, and every channel-changing shortcut carry nothing yet."""
    for module in model.modules():
        if hasattr(module, "conv1") and hasattr(module, "conv2"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)


def carry(conv: nn.Conv2d, features: int) -> None:
    """Let a convolution pass its first ``features`` channels on unchanged (its centre tap is their identity)."""
    with torch.no_grad():
        conv.weight[:features] = 0
        conv.bias[:features] = 0
        centre = conv.kernel_size[0] // 2
        conv.weight[range(features), range(features), centre, centre] = 1


def carry_shortcuts(resnets: nn.ModuleList, features: int) -> None:
    """Pass the first ``features`` channels through the resnets that change the channel count."""
    for resnet in resnets:
        if resnet.conv_shortcut is not None:
            carry(resnet.conv_shortcut, features)


def gather(features: torch.Tensor) -> torch.Tensor:
    """Return [n, 4 c, h / 2, w / 2]: the 2x2 neighbours of each feature, channel first, then row, then column."""
    return F.pixel_unshuffle(features, 2)


def principal(features: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ``count`` leading principal directions [count, c] of [n, c, h, w] (second moments, not centred)."""
    rows = features.permute(1, 0, 2, 3).flatten(1).double()
    directions = torch.linalg.eigh(rows @ rows.T)[1].flip(1).T[:count]
    signs = torch.where(directions.sum(1, keepdim=True) < 0, -1.0, 1.0)
    return (directions * signs).to(features.dtype)


def project(conv: nn.Conv2d, features: torch.Tensor) -> torch.Tensor:
    """Set a stride-2 convolution to the leading components of the gathered features; return its output."""
    known = features.shape[1]
    gathered = gather(features)
    directions = principal(gathered, min(conv.out_channels, gathered.shape[1]))
    count = len(directions)
    with torch.no_grad():
        conv.weight[:count] = 0
        conv.bias[:count] = 0
        conv.weight[:count, :known, :2, :2] = directions.view(count, known, 2, 2)
    return torch.einsum("kc,nchw->nkhw", directions, gathered)


def split_pairs(conv: nn.Conv2d, pairs: Pairs) -> None:
    """Let a 1x1 shortcut write the first ``pairs.count`` channels as +/- pairs, and nothing else."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        for signal in range(pairs.count):
            conv.weight[pairs.plus(signal), signal] = 1
            conv.weight[pairs.plus(signal) + 1, signal] = -1


def close_linearly(norm: nn.GroupNorm, last_resnet: nn.Module, pairs: Pairs, power: float) -> None:
    """Fix the closing GroupNorm's statistics with constants, and scale it so that signals pass at unit gain.

    ``power`` is the mean square of the signals.
    """
    rms = ((2 * pairs.per_group * power + 2 * CONSTANT**2) / pairs.width) ** 0.5
    with torch.no_grad():
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        for signal in range(pairs.count):
            norm.weight[pairs.plus(signal) : pairs.plus(signal) + 2] = rms
        for channel in pairs.constants():
            last_resnet.conv2.bias[channel] = CONSTANT
            last_resnet.conv2.bias[channel + 1] = -CONSTANT


def read_pairs(conv: nn.Conv2d, pairs: Pairs, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Let the closing convolution's centre tap return ``scale * (signal - shift)``."""
    with torch.no_grad():
        conv.weight[: pairs.count] = 0
        for signal in range(pairs.count):
            channel = pairs.plus(signal)
            conv.weight[signal, channel, 1, 1] = scale[signal]
            conv.weight[signal, channel + 1, 1, 1] = -scale[signal]
        conv.bias[: pairs.count] = -scale * shift


def start_encoder(model: AutoencoderKL, pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Set the encoder to patch PCA; return the features at each resolution, finest first, and the latents.

    Latents have zero mean, and their deviations are the square roots of the components', scaled to a mean power of
    one: between isometric (fine detail drowns in the noise) and white (all capacity goes to fine detail).
    """
    encoder, channels = model.encoder, model.config.latent_channels
    carry(encoder.conv_in, pixels.shape[1])
    levels = [pixels]
    for block in encoder.down_blocks[:-1]:
        carry_shortcuts(block.resnets, levels[-1].shape[1])
        levels.append(project(block.downsamplers[0].conv, levels[-1]))
    codes = levels[-1][:, :channels]
    pairs = Pairs(channels, encoder.conv_norm_out.num_channels, encoder.conv_norm_out.num_groups)
    split_pairs(encoder.down_blocks[-1].resnets[0].conv_shortcut, pairs)
    close_linearly(encoder.conv_norm_out, encoder.mid_block.resnets[-1], pairs, float(codes.square().mean()))
    shift, spread = codes.mean((0, 2, 3)), codes.std((0, 2, 3))
    scale = spread.rsqrt() / spread.mean().sqrt()
    read_pairs(encoder.conv_out, pairs, scale, shift)
    with torch.no_grad():
        encoder.conv_out.weight[channels:] = 0
        encoder.conv_out.bias[channels:] = LOG_VARIANCE
        for conv in (model.quant_conv, model.post_quant_conv):
            conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None])
            conv.bias.zero_()
    return levels, scale[:, None, None] * (codes - shift[:, None, None])


def neighbourhoods(features: torch.Tensor, chunk: int = 4) -> Iterator[torch.Tensor]:
    """Yield the 3x3 zero-padded neighbourhoods of nearest-upsampled features, [9 c + 1, positions], a one appended."""
    for part in features.split(chunk):
        columns = F.unfold(F.interpolate(part, scale_factor=2, mode="nearest"), 3, padding=1)
        rows = columns.permute(1, 0, 2).flatten(1)
        yield torch.cat([rows, torch.ones_like(rows[:1])])


def regress(conv: nn.Conv2d, features: torch.Tensor, target: torch.Tensor, chunk: int = 4) -> torch.Tensor:
    """Set the convolution after an upsampling to the least-squares map from ``features`` to ``target``; apply it."""
    known, count = features.shape[1], target.shape[1]
    size = 9 * known + 1
    gram, cross = torch.zeros(size, size).double(), torch.zeros(size, count).double()
    for rows, wanted in zip(neighbourhoods(features, chunk), target.split(chunk), strict=True):
        gram += (rows @ rows.T).double()
        cross += (rows @ wanted.permute(1, 0, 2, 3).flatten(1).T).double()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, cross).T.to(features.dtype)
    with torch.no_grad():
        conv.weight[:count] = 0
        conv.weight[:count, :known] = solution[:, :-1].view(count, known, 3, 3)
        conv.bias[:count] = solution[:, -1]
        upsampled = F.interpolate(features, scale_factor=2, mode="nearest")
        return F.conv2d(upsampled, conv.weight[:count, :known], conv.bias[:count], padding=1)


def start_decoder(model: AutoencoderKL, levels: list[torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Set the decoder to the linear inverse of the encoder, level by level; return what it makes of ``latents``."""
    decoder = model.decoder
    carry(decoder.conv_in, latents.shape[1])
    features = latents
    for block, target in zip(decoder.up_blocks[:-1], reversed(levels[:-1]), strict=True):
        carry_shortcuts(block.resnets, features.shape[1])
        features = regress(block.upsamplers[0].conv, features, target[:, : block.upsamplers[0].conv.out_channels])
    pairs = Pairs(3, decoder.conv_norm_out.num_channels, decoder.conv_norm_out.num_groups)
    split_pairs(decoder.up_blocks[-1].resnets[0].conv_shortcut, pairs)
    close_linearly(decoder.conv_norm_out, decoder.up_blocks[-1].resnets[-1], pairs, float(features.square().mean()))
    read_pairs(decoder.conv_out, pairs, torch.ones(3), torch.zeros(3))
    return features


def start_linearly(model: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Initialise ``model`` from sample ``pixels`` [n, 3, h, w] in -1..1 (both on the CPU); return its pictures of them.

    Needs attention-free mid blocks, at least four channels per closing group, and a change of channel count into the
    last down block and the last up block; raises ``ValueError`` otherwise.
    """
    ends = (model.encoder.down_blocks[-1].resnets[0], model.decoder.up_blocks[-1].resnets[0])
    if any(resnet.conv_shortcut is None for resnet in ends):
        raise ValueError("The first two and the last two of block_out_channels must differ.")
    silence_residuals(model)
    with torch.no_grad():
        levels, latents = start_encoder(model, pixels)
        return start_decoder(model, levels, latents)
