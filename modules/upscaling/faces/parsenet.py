"""ParseNet: which part of a face each pixel is, for the edge along which a restored face is put back.

The face parsing network of Chen et al. 2021, "Progressive Semantic-Aware Style Transformation for Blind Face
Restoration". Modules are called as in facexlib's file ``parsing_parsenet.pth``; depths and widths come from a file's
names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

SIDE = 512
# Background, hat, necklace, neck and clothes; what is left is face, ears and hair.
OUTSIDE = (0, 14, 16, 17, 18)

_SLOPE = 0.2


class Convolution(nn.Module):
    """A convolution with mirrored edges, and a norm in place of its bias where there is one."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(inputs, outputs, 3, stride, bias=not norm)
        self.norm = nn.ModuleDict({"norm": nn.BatchNorm2d(outputs)} if norm else {})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        for norm in self.norm.values():
            x = norm(x)
        return x


class Block(nn.Module):
    """Two convolutions beside a shortcut; ``scale`` says whether the size is halved, kept or doubled."""

    def __init__(self, inputs: int, outputs: int, scale: str) -> None:
        super().__init__()
        self.doubles = scale == "up"
        down = 2 if scale == "down" else 1
        self.conv1 = Convolution(inputs, outputs, norm=True)
        self.conv2 = Convolution(outputs, outputs, stride=down, norm=True)
        self.shortcut_func = nn.Identity() if scale == "same" else Convolution(inputs, outputs, stride=down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.doubles:
            x = F.interpolate(x, scale_factor=2.0)
        h = F.leaky_relu(self.conv1(x), _SLOPE)
        return torch.add(self.shortcut_func(x), self.conv2(h))


class ParseNet(nn.Module):
    """The network of a file with the names and shapes in ``state``; raises ``KeyError`` for one it lacks."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        first, parts = state["encoder.0.conv2d.weight"].shape[0], state["out_mask_conv.conv2d.weight"].shape[0]
        self.encoder = nn.Sequential(Convolution(3, first), *_blocks(state, "encoder.", "down"))
        self.body = nn.Sequential(*_blocks(state, "body.", "same"))
        self.decoder = nn.Sequential(*_blocks(state, "decoder.", "up"))
        last = state["out_mask_conv.conv2d.weight"].shape[1]
        self.out_img_conv = Convolution(last, 3)
        self.out_mask_conv = Convolution(last, parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, parts, height, width] that is highest at what a pixel is; ``x`` is RGB from -1 to 1."""
        x = self.encoder(x)
        result: torch.Tensor = self.out_mask_conv(self.decoder(x + self.body(x)))
        return result


def _blocks(state: Mapping[str, torch.Tensor], prefix: str, scale: str) -> list[Block]:
    shapes = {int(name.split(".")[1]): weight.shape for name, weight in state.items()
              if name.startswith(prefix) and name.endswith(".conv1.conv2d.weight")}
    return [Block(shape[1], shape[0], scale) for _, shape in sorted(shapes.items())]
