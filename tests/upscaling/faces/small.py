"""Small networks of face restoration with seeded weights under the names of the published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from modules.upscaling.faces.alignment import TEMPLATE

Shapes = dict[str, tuple[int, ...]]

CODES, WIDTH, SIDE = 32, 64, 32


def seeded(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return weights that keep the size of what goes through: norms near 1, biases near 0."""
    noise = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            state[name] = torch.rand(tuple(shape), generator=noise) + 0.5
        elif len(shape) == 1 and name.endswith("weight"):
            state[name] = torch.rand(tuple(shape), generator=noise) * 0.2 + 0.9
        else:
            scale = 0.05 if len(shape) == 1 else float(torch.Size(shape[1:]).numel()) ** -0.5
            state[name] = torch.randn(tuple(shape), generator=noise) * scale
    return state


def codeformer() -> Shapes:
    """Return CodeFormer's shapes with two levels, 32 and 16 pixels wide, and one layer of the transformer."""
    shapes: Shapes = {"position_emb": (256, WIDTH), **_linear("feat_emb", 256, WIDTH),
                      "quantize.embedding.weight": (CODES, 256)}
    layer = "ft_layers.0."
    shapes |= {f"{layer}self_attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{layer}self_attn.in_proj_bias": (3 * WIDTH,),
               **_linear(f"{layer}self_attn.out_proj", WIDTH, WIDTH), **_linear(f"{layer}linear1", WIDTH, 2 * WIDTH),
               **_linear(f"{layer}linear2", 2 * WIDTH, WIDTH), **_norm(f"{layer}norm1", WIDTH),
               **_norm(f"{layer}norm2", WIDTH), **_norm("idx_pred_layer.0", WIDTH),
               "idx_pred_layer.1.weight": (CODES, WIDTH)}
    encoder = [_convolution("", 3, 32), _residual(32, 32), _residual(32, 32), _convolution("conv", 32, 32),
               _residual(32, 64), _attention(64), _residual(64, 64), _attention(64),
               _residual(64, 64), _attention(64), _residual(64, 64), _norm("", 64), _convolution("", 64, 256)]
    generator = [_convolution("", 256, 64), _residual(64, 64), _attention(64), _residual(64, 64),
                 _residual(64, 64), _attention(64), _residual(64, 64), _attention(64), _convolution("conv", 64, 64),
                 _residual(64, 32), _residual(32, 32), _norm("", 32), _convolution("", 32, 3)]
    for part, blocks in (("encoder", encoder), ("generator", generator)):
        for i, block in enumerate(blocks):
            shapes |= {f"{part}.blocks.{i}.{name.lstrip('.')}": shape for name, shape in block.items()}
    fusion = {f"encode_enc.{name}": shape for name, shape in _residual(64, 32).items()}
    for name in ("scale.0", "scale.2", "shift.0", "shift.2"):
        fusion |= _convolution(name, 32, 32)
    return shapes | {f"fuse_convs_dict.32.{name}": shape for name, shape in fusion.items()}


def retinaface(narrow: int = 8, channels: int = 16) -> Shapes:
    """Return RetinaFace's shapes with one block for each stage of a ResNet that begins ``narrow``."""
    shapes: Shapes = {"body.conv1.weight": (narrow, 3, 7, 7), **_batch_norm("body.bn1", narrow)}
    inputs = narrow
    for stage, width in enumerate((narrow, 2 * narrow, 4 * narrow, 8 * narrow), 1):
        block, outputs = f"body.layer{stage}.0", 4 * width
        shapes |= {f"{block}.conv1.weight": (width, inputs, 1, 1), f"{block}.conv2.weight": (width, width, 3, 3),
                   f"{block}.conv3.weight": (outputs, width, 1, 1), **_batch_norm(f"{block}.bn1", width),
                   **_batch_norm(f"{block}.bn2", width), **_batch_norm(f"{block}.bn3", outputs),
                   f"{block}.downsample.0.weight": (outputs, inputs, 1, 1),
                   **_batch_norm(f"{block}.downsample.1", outputs)}
        inputs = outputs
    for i, width in enumerate((8 * narrow, 16 * narrow, 32 * narrow), 1):
        shapes |= _normed(f"fpn.output{i}", width, channels, 1)
    shapes |= _normed("fpn.merge1", channels, channels) | _normed("fpn.merge2", channels, channels)
    half, quarter = channels // 2, channels // 4
    for i in (1, 2, 3):
        shapes |= {**_normed(f"ssh{i}.conv3X3", channels, half), **_normed(f"ssh{i}.conv5X5_1", channels, quarter),
                   **_normed(f"ssh{i}.conv5X5_2", quarter, quarter), **_normed(f"ssh{i}.conv7X7_2", quarter, quarter),
                   **_normed(f"ssh{i}.conv7x7_3", quarter, quarter)}
    for head, values in (("ClassHead", 4), ("BboxHead", 8), ("LandmarkHead", 20)):
        for i in range(3):
            shapes |= _convolution(f"{head}.{i}.conv1x1", channels, values, 1)
    return shapes


def parsenet() -> Shapes:
    """Return ParseNet's shapes with one halving, one block between, one doubling."""
    shapes: Shapes = {**_convolution("encoder.0.conv2d", 3, 8)}
    for block, inputs, outputs in (("encoder.1", 8, 16), ("body.0", 16, 16), ("decoder.0", 16, 8)):
        if inputs != outputs:
            shapes |= _convolution(f"{block}.shortcut_func.conv2d", inputs, outputs)
        shapes |= {f"{block}.conv1.conv2d.weight": (outputs, inputs, 3, 3), **_batch_norm(f"{block}.conv1.norm.norm",
                                                                                          outputs)}
        shapes |= {f"{block}.conv2.conv2d.weight": (outputs, outputs, 3, 3), **_batch_norm(f"{block}.conv2.norm.norm",
                                                                                           outputs)}
    return {**shapes, **_convolution("out_img_conv.conv2d", 8, 3), **_convolution("out_mask_conv.conv2d", 8, 19)}


def landmarks(x: float, y: float, size: float, angle: float = 0.0) -> np.ndarray:
    """Return the landmarks [5, 2] of a face whose square is ``size`` wide, turned by ``angle`` (radians)."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((TEMPLATE - 256) / 512 * size @ turn + [x, y])


def waves(side: int, channels: int = 3) -> torch.Tensor:
    """Return a picture of waves [1, channels, side, side] from -1 to 1."""
    place = torch.arange(channels * side * side, dtype=torch.float32).reshape(1, channels, side, side)
    return torch.sin(place / 7) * torch.cos(place / 131)


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _batch_norm(name: str, channels: int) -> Shapes:
    return {**_norm(name, channels), f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}


def _convolution(name: str, inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def _normed(name: str, inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    return {f"{name}.0.weight": (outputs, inputs, kernel, kernel), **_batch_norm(f"{name}.1", outputs)}


def _residual(inputs: int, outputs: int) -> Shapes:
    found = {**_norm("norm1", inputs), **_convolution("conv1", inputs, outputs), **_norm("norm2", outputs),
             **_convolution("conv2", outputs, outputs)}
    return found | (_convolution("conv_out", inputs, outputs, 1) if inputs != outputs else {})


def _attention(channels: int) -> Shapes:
    found = _norm("norm", channels)
    for name in ("q", "k", "v", "proj_out"):
        found |= _convolution(name, channels, channels, 1)
    return found
