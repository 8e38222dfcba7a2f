"""The original latent-diffusion layout of a single file: its tensors' names, and configurations read off their shapes.

Configurations are those of diffusers' and transformers' model classes. The names that correspond are computed from
the depth of the network, so any width and depth maps. Source: the module trees of CompVis latent-diffusion
(``openaimodel.UNetModel``, ``model.Encoder`` and ``Decoder``) and of diffusers (``UNet2DConditionModel``,
``AutoencoderKL``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
CLIP_PREFIXES = ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_DIFFUSERS_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SD1_HEADS = 8
HEAD_WIDTH = 64
# The width of the sinusoidal embedding of each number (size, crop ...) that SDXL is told.
NUMBER_WIDTH = 256


def under(shapes: Shapes, prefix: str) -> Shapes:
    """Return the entries whose names begin with ``prefix``, without it."""
    return {name[len(prefix):]: shape for name, shape in shapes.items() if name.startswith(prefix)}


def indices(names: Iterable[str], prefix: str) -> int:
    """Return how many consecutive numbers from 0 follow ``prefix`` in ``names``."""
    found = {name[len(prefix):].split(".", 1)[0] for name in names if name.startswith(prefix)}
    return next(count for count in itertools.count() if str(count) not in found)


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """Return the ``UNet2DConditionModel`` configuration of a denoiser's tensors, named without prefix.

    The layout does not tell the number of attention heads: Stable Diffusion 1, whose projections into attention are
    convolutions, has 8 at every width, and so has its x4 upscaler; in its other successors, with linear ones, heads
    are 64 wide. Raises ``KeyError`` where a tensor that every such network has is missing.
    """
    levels = list(_levels(shapes))
    attends = [any(f"input_blocks.{block}.1.proj_in.weight" in shapes for block in level) for level in levels]
    # A downsampling ends every level but the last, and its convolution keeps the width.
    widths = tuple(shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels)
    linear = len(shapes["middle_block.1.proj_in.weight"]) == 2
    labels = _labels(shapes, attends[0])
    wide_heads = linear and "num_class_embeds" not in labels
    crosses = tuple(_only_crosses(shapes, level) for level in levels)
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": tuple("CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)),
        "transformer_layers_per_block": tuple(_transformers(shapes, level) for level in levels),
        "cross_attention_dim": _context_width(shapes),
        "attention_head_dim": tuple(max(1, width // HEAD_WIDTH) for width in widths) if wide_heads else SD1_HEADS,
        "use_linear_projection": linear,
        **({"only_cross_attention": crosses} if any(crosses) else {}),
        **labels,
    }


def _only_crosses(shapes: Shapes, level: list[int]) -> bool:
    """Return whether a level's first attention is to the text as well: its keys are made of something else's width."""
    keys = shapes.get(f"input_blocks.{level[0]}.1.transformer_blocks.0.attn1.to_k.weight")
    return keys is not None and keys[0] != keys[1]


def _transformers(shapes: Shapes, level: list[int]) -> int:
    """Return how many transformer blocks an attention of ``level`` has, those of the middle where it has none.

    diffusers takes the middle's number from the last level, which in SDXL's refiner has no attention of its own.
    """
    middle = indices(shapes, "middle_block.1.transformer_blocks.")
    return indices(shapes, f"input_blocks.{level[0]}.1.transformer_blocks.") or middle


def _labels(shapes: Shapes, attends_first: bool) -> dict[str, Any]:
    """Return how a denoiser is told more than a timestep, in the configuration's terms; nothing in most.

    SDXL's, whose first level has no attention, embed the pooled text with numbers about the picture; Stable
    Diffusion 2's unCLIP embeds a picture, its x4 upscaler the level of the noise on the picture.
    """
    if "label_emb.weight" in shapes:
        return {"num_class_embeds": shapes["label_emb.weight"][0]}
    if "label_emb.0.0.weight" not in shapes:
        return {}
    width = {"projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1]}
    if attends_first:
        return {"class_embed_type": "projection", **width}
    return {"addition_embed_type": "text_time", "addition_time_embed_dim": NUMBER_WIDTH, **width}


def is_mirrored(shapes: Shapes, config: Mapping[str, Any]) -> bool:
    """Return whether the way up has as many transformer blocks at each level as the way down.

    Distilled networks that were cut unevenly (SSD-1B) have not, and other tensors would fit all the same.
    """
    layers, depths = config["layers_per_block"] + 1, config["transformer_layers_per_block"]
    attends = [kind.startswith("CrossAttn") for kind in config["up_block_types"]]
    return all(
        indices(shapes, f"output_blocks.{level * layers + layer}.1.transformer_blocks.") == depth * attends[level]
        for level, depth in enumerate(reversed(depths)) for layer in range(layers)
    )


def _levels(shapes: Shapes) -> Iterator[list[int]]:
    """Yield the numbers of the input blocks that hold a residual block, level by level."""
    level: list[int] = []
    for block in range(1, indices(shapes, "input_blocks.")):
        if f"input_blocks.{block}.0.op.weight" in shapes:
            yield level
            level = []
        else:
            level.append(block)
    yield level


def _context_width(shapes: Shapes) -> int:
    return shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Return the ``AutoencoderKL`` configuration of an autoencoder's tensors, in either layout, named without prefix.

    Raises ``KeyError`` where a tensor that every such network has is missing.
    """
    level, block = ("encoder.down_blocks.", "resnets") if is_diffusers(shapes) else ("encoder.down.", "block")
    depth = indices(shapes, level)
    middle = "encoder.mid_block.attentions." if is_diffusers(shapes) else "encoder.mid.attn_1."
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": tuple(shapes[f"{level}{i}.{block}.0.conv1.weight"][0] for i in range(depth)),
        "layers_per_block": indices(shapes, f"{level}0.{block}."),
        "down_block_types": ("DownEncoderBlock2D",) * depth,
        "up_block_types": ("UpDecoderBlock2D",) * depth,
        "mid_block_add_attention": any(name.startswith(middle) for name in shapes),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def is_diffusers(shapes: Iterable[str]) -> bool:
    """Return whether an autoencoder's tensors carry diffusers' names."""
    return any(name.startswith("encoder.down_blocks.") for name in shapes)


def clip_config(shapes: Shapes) -> dict[str, Any]:
    """Return the ``CLIPTextConfig`` of a CLIP text encoder's tensors, named without any prefix.

    Heads are 64 wide, as in every CLIP text encoder that OpenAI published. Raises ``KeyError`` as ``unet_config``.
    """
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": indices(shapes, "encoder.layers."),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def unet_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the original path of each module path of diffusers' denoiser, for a configuration as ``unet_config``'s."""
    depth, layers = len(config["block_out_channels"]), config["layers_per_block"]
    modules = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1", "class_embedding": "label_emb",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        **_resnet("mid_block.resnets.0", "middle_block.0"), **_resnet("mid_block.resnets.1", "middle_block.2"),
    }
    for level in range(depth):
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            modules |= _resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{first + layer}.0")
            modules[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{first + layer}.1"
        modules[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
    for level, kind in enumerate(config["up_block_types"]):
        first = level * (layers + 1)
        for layer in range(layers + 1):
            modules |= _resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{first + layer}.0")
            modules[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        # The upsampling follows the attention where there is one.
        place = 2 if kind.startswith("CrossAttn") else 1
        modules[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{place}.conv"
    return modules


def _resnet(target: str, source: str) -> dict[str, str]:
    return {f"{target}.{ours}": f"{source}.{theirs}" for ours, theirs in RESNET.items()}


def vae_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the original path of each module path of diffusers' autoencoder that is named differently there."""
    depth, layers = len(config["block_out_channels"]), config["layers_per_block"]
    modules: dict[str, str] = {}
    for side in ("encoder", "decoder"):
        modules[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for block in (0, 1):
            modules |= _vae_resnet(f"{side}.mid_block.resnets.{block}", f"{side}.mid.block_{block + 1}")
        for ours, theirs in VAE_ATTENTION.items():
            modules[f"{side}.mid_block.attentions.0.{ours}"] = f"{side}.mid.attn_1.{theirs}"
    for level in range(depth):
        # The original numbers both halves from the pixels inwards; diffusers numbers the decoder outwards.
        down, up = f"encoder.down.{level}", f"decoder.up.{depth - 1 - level}"
        modules[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"{down}.downsample.conv"
        modules[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"{up}.upsample.conv"
        for layer in range(layers + 1):
            modules |= _vae_resnet(f"encoder.down_blocks.{level}.resnets.{layer}", f"{down}.block.{layer}")
            modules |= _vae_resnet(f"decoder.up_blocks.{level}.resnets.{layer}", f"{up}.block.{layer}")
    return modules


def _vae_resnet(target: str, source: str) -> dict[str, str]:
    return {target: source, f"{target}.conv_shortcut": f"{source}.nin_shortcut"}


def old_vae_modules() -> dict[str, str]:
    """Return how diffusers itself named the autoencoder's attention layers before version 0.17."""
    return {
        f"{side}.mid_block.attentions.0.{ours}": f"{side}.mid_block.attentions.0.{theirs}"
        for side in ("encoder", "decoder") for ours, theirs in OLD_DIFFUSERS_ATTENTION.items()
    }


def rename(name: str, modules: Mapping[str, str]) -> str:
    """Return ``name`` with the longest of its module paths that ``modules`` knows replaced; itself without one."""
    path = name
    while "." in path:
        path = path.rpartition(".")[0]
        if path in modules:
            return modules[path] + name[len(path):]
    return name
