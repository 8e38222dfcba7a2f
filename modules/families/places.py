"""Where a checkpoint's weights are, by all the names under which files of changes (LoRA and its kin) know them.

From a checkpoint's header alone. Names: kohya-ss' sd-scripts (``lora_unet_``, ``lora_te_``; ``lora_te1_`` and
``lora_te2_`` for SDXL) over diffusers' or the original module paths, diffusers and PEFT (``unet.``,
``text_encoder.``), and the original ones (``diffusion_model.``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modules.families import checkpoint, ldm
from modules.families.base import Variant
from modules.families.components import shapes_of
from modules.library.headers import Header

OUTSIDE = "BASE"
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.")
_LINEAR = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")


@dataclass(frozen=True)
class Place:
    """A module: ``component`` and its ``path`` in diffusers' or transformers' network.

    ``weight`` and ``bias`` are their shapes, None for none. ``block`` is the part of the denoiser it is in by the
    original numbering: ``IN00``, ``M00``, ``OUT00`` and so on, ``BASE`` for the rest and for text encoders.
    """

    component: str
    path: str
    weight: tuple[int, ...] | None
    bias: tuple[int, ...] | None
    block: str = OUTSIDE


def places(header: Header, variant: Variant) -> dict[str, Place]:
    """Return every module of the denoiser and the text encoders by each of its names; order is that of the network."""
    found: dict[str, Place] = {}
    for place, original in _denoiser(header, variant):
        for name in _denoiser_names(place.path, original):
            found[name] = place
    encoders = [name for name in variant.components if name.startswith("text_encoder")]
    for component in encoders:
        for place in _text_encoder(component, variant.components[component]):
            for name in _text_names(place, len(encoders) > 1):
                found[name] = place
    return found


def trained_names(header: Header, variant: Variant, original: bool) -> dict[Place, str]:
    """Return the one name of each module under which sd-scripts saves what it learned for it.

    Those of the denoiser are by its ``original`` module paths (SDXL's), or by diffusers'.
    """
    which = 1 if original else 0
    found = {place: _denoiser_names(place.path, path)[which] for place, path in _denoiser(header, variant)}
    encoders = [name for name in variant.components if name.startswith("text_encoder")]
    for component in encoders:
        for place in _text_encoder(component, variant.components[component]):
            found[place] = _text_names(place, len(encoders) > 1)[0]
    return found


def _denoiser(header: Header, variant: Variant) -> Iterator[tuple[Place, str]]:
    originals = ldm.unet_modules(variant.components["unet"])
    back = {theirs: ours for ours, theirs in originals.items()}
    if header.components:
        shapes: ldm.Shapes = {name: tensor.shape for name, tensor in header.components["unet"].tensors.items()}
    else:
        own = ldm.under(shapes_of(header), checkpoint.unet_prefix(shapes_of(header)) or "")
        shapes = {ldm.rename(name, back): shape for name, shape in own.items() if checkpoint.is_of_denoiser(name)}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in shapes):
        original = ldm.rename(f"{path}.weight", originals).removesuffix(".weight")
        yield Place("unet", path, shapes.get(f"{path}.weight"), shapes.get(f"{path}.bias"), _block(original)), original


def _block(original: str) -> str:
    if original.startswith("middle_block."):
        return "M00"
    found = _BLOCK.match(original)
    return f"{'IN' if found[1] == 'input' else 'OUT'}{int(found[2]):02}" if found else OUTSIDE


def _denoiser_names(path: str, original: str) -> tuple[str, ...]:
    flat = (path.replace(".", "_"), original.replace(".", "_"))
    return (*(f"lora_unet_{one}" for one in flat), f"lycoris_{flat[0]}", f"unet.{path}", path,
            f"diffusion_model.{original}", f"model.diffusion_model.{original}")


def _text_encoder(component: str, config: Mapping[str, Any]) -> Iterator[Place]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    square, row = (width, width), (width,)
    yield Place(component, "embeddings.token_embedding", (config["vocab_size"], width), None)
    yield Place(component, "embeddings.position_embedding", (config["max_position_embeddings"], width), None)
    for layer in range(config["num_hidden_layers"]):
        under = f"encoder.layers.{layer}"
        for module in _LINEAR:
            yield Place(component, f"{under}.{module}", square, row)
        yield Place(component, f"{under}.layer_norm1", row, row)
        yield Place(component, f"{under}.mlp.fc1", (inner, width), (inner,))
        yield Place(component, f"{under}.mlp.fc2", (width, inner), row)
        yield Place(component, f"{under}.layer_norm2", row, row)
    yield Place(component, "final_layer_norm", row, row)
    if component == "text_encoder_2":
        yield Place(component, "text_projection", (config["projection_dim"], width), None)


def _text_names(place: Place, several: bool) -> tuple[str, ...]:
    path, component = place.path, place.component
    inside = "" if path == "text_projection" else "text_model."
    flat = f"{inside}{path}".replace(".", "_")
    short = {"text_encoder": "te1", "text_encoder_2": "te2"}[component] if several else "te"
    return f"lora_{short}_{flat}", f"lycoris_{component}_{flat}", f"{component}.{inside}{path}", f"{component}.{path}"
