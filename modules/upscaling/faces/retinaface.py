"""RetinaFace on a ResNet: where the faces of a picture are, and their eyes, nose and mouth.

Deng et al. 2020, "RetinaFace: Single-shot Multi-level Face Localisation in the Wild". Three levels of a feature pyramid
look for faces of different sizes; each place of a level has two anchors. Modules are called as in facexlib's file
``detection_Resnet50_Final.pth``; the depths of the ResNet come from a file's names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

# Of each level: how many pixels its places are apart, and the sides of the anchors there, in pixels.
LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
LANDMARKS = 5
# In units of an anchor's side: offsets, and logarithms of sizes.
OFFSET_SCALE, SIZE_SCALE = 0.1, 0.2
# ImageNet's mean in the order blue, green, red, 0 to 255, as the network was trained with.
MEAN = (104.0, 117.0, 123.0)

_EXPANSION = 4


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions; the one in the middle has the stride (He et al. 2016, version 1.5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return F.relu(self.bn3(self.conv3(h)) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet without its classifier; ``depths`` are the numbers of blocks of its four stages."""

    def __init__(self, width: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                blocks.append(Bottleneck(inputs, width << stage, 2 if stage and not index else 1))
                inputs = (width << stage) * _EXPANSION
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of the last three stages, at an 8th, a 16th and a 32nd of the size."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        stages = [x]
        for name in ("layer1", "layer2", "layer3", "layer4"):
            stages.append(self.get_submodule(name)(stages[-1]))
        return stages[2:]


class Pyramid(nn.Module):
    """Features of three levels with what the coarser ones know (feature pyramid network)."""

    def __init__(self, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_convolved(width, outputs, 1) for width in inputs)
        self.merge1, self.merge2 = _convolved(outputs, outputs), _convolved(outputs, outputs)

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        fine, middle, coarse = (layer(x) for layer, x in
                                zip((self.output1, self.output2, self.output3), features, strict=True))
        middle = self.merge2(middle + F.interpolate(coarse, middle.shape[-2:]))
        fine = self.merge1(fine + F.interpolate(middle, fine.shape[-2:]))
        return [fine, middle, coarse]


class Context(nn.Module):
    """Features seen with three, five and seven pixels around (single stage headless face detector's SSH module)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.conv3X3 = _convolved(channels, half, active=False)
        self.conv5X5_1 = _convolved(channels, quarter)
        self.conv5X5_2 = _convolved(quarter, quarter, active=False)
        self.conv7X7_2 = _convolved(quarter, quarter)
        self.conv7x7_3 = _convolved(quarter, quarter, active=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wider = self.conv5X5_1(x)
        return F.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(wider), self.conv7x7_3(self.conv7X7_2(wider))], 1))


class Head(nn.Module):
    """``values`` numbers for each anchor of a level."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(channels, 2 * values, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, anchors, values]."""
        result: torch.Tensor = self.conv1x1(x)
        return result.permute(0, 2, 3, 1).reshape(len(x), -1, self.values)


class RetinaFace(nn.Module):
    """The network of a file with the names and shapes in ``state``; raises ``KeyError`` for one it lacks."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        width = state["body.conv1.weight"].shape[0]
        depths = tuple(len({name.split(".")[2] for name in state if name.startswith(f"body.layer{stage}.")})
                       for stage in (1, 2, 3, 4))
        channels = state["ssh1.conv3X3.0.weight"].shape[1]
        self.body = ResNet(width, depths)
        self.fpn = Pyramid((8 * width, 16 * width, 32 * width), channels)
        self.ssh1, self.ssh2, self.ssh3 = (Context(channels) for _ in LEVELS)
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(channels, values) for _ in LEVELS) for values in (2, 4, 2 * LANDMARKS))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return probabilities [batch, anchors], boxes [.., 4] and landmarks [.., 10] relative to their anchors.

        ``x`` [batch, 3, height, width] is blue, green, red from 0 to 255, less ``MEAN``.
        """
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        levels = [context(level) for context, level in zip(contexts, self.fpn(self.body(x)), strict=True)]
        classes, boxes, landmarks = (
            torch.cat([head(level) for head, level in zip(heads, levels, strict=True)], 1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead))
        return classes.softmax(-1)[..., 1], boxes, landmarks


def anchors(width: int, height: int) -> torch.Tensor:
    """Return centre and side of the anchors in a picture, in pixels: [anchors, 3], in the order of the heads."""
    parts = []
    for step, sides in LEVELS:
        y, x, side = torch.meshgrid(
            (torch.arange(-(-height // step)) + 0.5) * step, (torch.arange(-(-width // step)) + 0.5) * step,
            torch.tensor(sides, dtype=torch.float32), indexing="ij")
        parts.append(torch.stack([x, y, side], -1).reshape(-1, 3))
    return torch.cat(parts)


def placed_boxes(relative: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """Return boxes [n, 4] (left, top, right, bottom) in pixels from what the network says of ``around`` [n, 3]."""
    centre = around[:, :2] + relative[:, :2] * OFFSET_SCALE * around[:, 2:]
    half = around[:, 2:] * (relative[:, 2:] * SIZE_SCALE).exp() / 2
    return torch.cat([centre - half, centre + half], 1)


def placed_landmarks(relative: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """Return landmarks [n, 5, 2] (x, y) in pixels from what the network says of ``around`` [n, 3]."""
    points = relative.reshape(len(relative), LANDMARKS, 2)
    return around[:, None, :2] + points * OFFSET_SCALE * around[:, None, 2:]


def _convolved(inputs: int, outputs: int, kernel: int = 3, *, active: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if active else []))
