"""CodeFormer: a face rebuilt from a codebook of faces, as near to the picture as is asked for.

Zhou et al. 2022, "Towards Robust Blind Face Restoration with Codebook Lookup Transformer": an encoder, a transformer
that reads off which codes the face is made of, and a generator that draws them; at each of its levels a controllable
feature transformation brings in what the encoder saw there. Modules are called as in the published files, and depths
and widths come from a file's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

State = Mapping[str, torch.Tensor]

GROUPS, GROUP_EPSILON = 32, 1e-6
HEADS = 8
# What is added to a variance before its root is taken (adaptive instance normalisation).
VARIANCE_EPSILON = 1e-5
SLOPE = 0.2


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs, GROUP_EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs, GROUP_EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_out = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return torch.add(self.conv_out(x), h)


class Attention(nn.Module):
    """Self-attention of one head between all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, GROUP_EPSILON)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return torch.add(x, self.proj_out(h))


class Downsample(nn.Module):
    """Half as large; the padding is at the right and below alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Twice as large."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv(F.interpolate(x, scale_factor=2.0))
        return result


class Blocks(nn.Module):
    """A chain of blocks, each of the kind that its weights' names tell; ``resize`` is what those named ``conv`` do."""

    def __init__(self, state: State, prefix: str, resize: type[Downsample] | type[Upsample]) -> None:
        super().__init__()
        count = 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))
        self.blocks = nn.ModuleList(_block(_below(state, f"{prefix}{i}."), resize) for i in range(count))


class Layer(nn.Module):
    """A layer of the transformer; queries and keys know their places, values do not."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        values = self.norm1(x)
        asking = values + places
        x = x + self.self_attn(asking, asking, values, need_weights=False)[0]
        return torch.add(x, self.linear2(F.gelu(self.linear1(self.norm2(x)))))


class Fusion(nn.Module):
    """Controllable feature transformation: the generator's features scaled and shifted by the encoder's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode_enc = Residual(2 * channels, channels)
        self.scale, self.shift = (
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE),
                          nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(2))

    def forward(self, seen: torch.Tensor, made: torch.Tensor, fidelity: float) -> torch.Tensor:
        both = self.encode_enc(torch.cat([seen, made], 1))
        return made + fidelity * (made * self.scale(both) + self.shift(both))


class CodeFormer(nn.Module):
    """The network of a published file, from the names and shapes in ``state``; raises ``KeyError`` for one it lacks."""

    def __init__(self, state: State) -> None:
        super().__init__()
        places, width = state["position_emb"].shape
        self.position_emb = nn.Parameter(torch.empty(places, width))
        codes, channels = state["quantize.embedding.weight"].shape
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(codes, channels)})
        self.feat_emb = nn.Linear(channels, width)
        layers = {name.split(".")[1] for name in state if name.startswith("ft_layers.")}
        hidden = state["ft_layers.0.linear1.weight"].shape[0]
        self.ft_layers = nn.ModuleList(Layer(width, hidden) for _ in layers)
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, codes, bias=False))
        self.encoder = Blocks(state, "encoder.blocks.", Downsample)
        self.generator = Blocks(state, "generator.blocks.", Upsample)
        sides = {name.split(".")[1] for name in state if name.startswith("fuse_convs_dict.")}
        self.fuse_convs_dict = nn.ModuleDict({
            side: Fusion(state[f"fuse_convs_dict.{side}.scale.0.weight"].shape[0]) for side in sorted(sides)})

    @property
    def side(self) -> int:
        """The pixels of a face's side."""
        halvings = sum(isinstance(block, Downsample) for block in self.encoder.blocks)
        return round(self.position_emb.shape[0] ** 0.5) << halvings

    def forward(self, x: torch.Tensor, fidelity: float) -> torch.Tensor:
        """Return faces [batch, 3, side, side] from -1 to 1, restored; ``fidelity`` 0 invents most, 1 keeps most."""
        x, seen = self._encoded(x)
        made = matched(self._codes(x), x)
        for before, block in pairwise((None, *self.generator.blocks)):
            made = block(made)
            side = made.shape[-1]
            # What the encoder saw at a level comes in after the level's first block.
            if isinstance(before, Upsample) and f"{side}" in self.fuse_convs_dict and fidelity > 0:
                made = self.fuse_convs_dict[f"{side}"](seen[side], made, fidelity)
        return made

    def _encoded(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Return the latent, and by its side what each level ended with."""
        seen = {}
        for block in self.encoder.blocks:
            if isinstance(block, Downsample):
                seen[x.shape[-1]] = x
            x = block(x)
        return x, seen

    def _codes(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the codes that the transformer finds in ``latent``, in its shape."""
        x = self.feat_emb(latent.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        found = self.quantize["embedding"](self.idx_pred_layer(x).argmax(-1))
        return torch.as_tensor(found.transpose(1, 2).reshape(latent.shape))


def matched(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Return ``content`` with mean and deviation of each channel as in ``style`` (adaptive instance normalisation)."""
    (mean, deviation), (style_mean, style_deviation) = _statistics(content), _statistics(style)
    return (content - mean) / deviation * style_deviation + style_mean


def _statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
    return mean, (variance + VARIANCE_EPSILON).sqrt()


def _block(state: State, resize: type[Downsample] | type[Upsample]) -> nn.Module:
    if "conv1.weight" in state:
        outputs, inputs = state["conv1.weight"].shape[:2]
        return Residual(inputs, outputs)
    if "q.weight" in state:
        return Attention(state["q.weight"].shape[0])
    if "conv.weight" in state:
        return resize(state["conv.weight"].shape[0])
    weight = state["weight"]
    if weight.ndim == 1:
        return nn.GroupNorm(GROUPS, len(weight), GROUP_EPSILON)
    return nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)


def _below(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
