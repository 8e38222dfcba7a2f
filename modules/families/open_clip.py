"""OpenCLIP's text towers (ViT-H of Stable Diffusion 2, ViT-bigG of SDXL) as transformers' CLIP text encoder.

The original layout is that of ``open_clip.TextTransformer``: a fused projection to queries, keys and values, and a
final projection that is transposed against a linear layer's. Tensors stay views of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modules.families import ldm
from modules.families.components import Source

if TYPE_CHECKING:
    import torch

WHAT = "The text encoder (OpenCLIP)"
MODULES = {
    "embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final",
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
BARE = {"embeddings.position_embedding.weight": "positional_embedding", "text_projection.weight": "text_projection.T"}
THIRDS = ("q", "k", "v")
HF = ("transformer.text_model.", "text_model.", "")
TOKENS = "embeddings.token_embedding.weight"
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_PART = re.compile(r"(.+attn\.in_proj_(?:weight|bias))\.([qkv])")


def open_clip_prefix(names: Mapping[str, Any], prefixes: Sequence[str]) -> str | None:
    """Return the prefix under which ``names`` hold a text tower, in either layout; None without one."""
    signs = ("transformer.resblocks.0.ln_1.weight", *(inner + TOKENS for inner in HF))
    return next((prefix for prefix in prefixes if any(prefix + sign in names for sign in signs)), None)


def open_clip_config(shapes: ldm.Shapes) -> dict[str, Any]:
    """Return the ``CLIPTextConfig`` of a text tower's tensors, in either layout, named without the prefix.

    Heads are 64 wide, as in ViT-H and ViT-bigG. Raises ``KeyError`` where a tensor that every tower has is missing.
    """
    inner = _hf_prefix(shapes)
    if inner is not None:
        config = ldm.clip_config(ldm.under(shapes, inner))
        projection = shapes.get("text_projection.weight", (config["hidden_size"],))[0]
        return {**config, "hidden_act": "gelu", "projection_dim": projection, "pad_token_id": 0}
    vocabulary, width = shapes["token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": ldm.indices(shapes, "transformer.resblocks."),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes["positional_embedding"][0],
        "hidden_act": "gelu",
        "projection_dim": shapes["text_projection"][1] if "text_projection" in shapes else width,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }


def open_clip_source(weights: Mapping[str, torch.Tensor], prefix: str) -> Source:
    """Return where a file keeps a text tower's tensors under ``prefix``, in the original layout or transformers'."""
    inner = _hf_prefix(weights, prefix)
    if inner is None:
        return Source(TowerTensors(weights), lambda name: prefix + original_name(name), WHAT)
    # The projection stands beside the encoder, not in it.
    return Source(weights, lambda name: prefix + ("" if name.startswith("text_projection.") else inner) + name, WHAT)


def _hf_prefix(names: Mapping[str, Any], prefix: str = "") -> str | None:
    return next((inner for inner in HF if prefix + inner + TOKENS in names), None)


def original_name(name: str) -> str:
    """Return the original name of a tensor of transformers' encoder; parts of fused ones end in ``.q``, ``.k``, ``.v``.

    ``text_projection.T`` is the transposed projection.
    """
    if name in BARE:
        return BARE[name]
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return ldm.rename(name, MODULES)
    index, inner = layer.groups()
    module, kind = inner.rsplit(".", 1)
    third = module.removeprefix("self_attn.").removesuffix("_proj")
    own = f"attn.in_proj_{kind}.{third}" if third in THIRDS else ldm.rename(inner, MODULES)
    return f"transformer.resblocks.{index}.{own}"


def stored_name(name: str) -> str:
    """Return the name of the tensor that ``original_name`` speaks of, the whole of which it may be a part."""
    part = _PART.fullmatch(name)
    return part[1] if part else name.removesuffix(".T")


class TowerTensors(Mapping[str, "torch.Tensor"]):
    """A file's tensors and, beside them, the parts that ``original_name`` speaks of; views, made when asked for."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> torch.Tensor:
        part = _PART.fullmatch(name)
        if part is not None:
            return self._weights[part[1]].tensor_split(3)[THIRDS.index(part[2])]
        if name.endswith("text_projection.T"):
            return self._weights[name.removesuffix(".T")].T
        return self._weights[name]

    def __contains__(self, name: object) -> bool:
        return stored_name(str(name)) in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
