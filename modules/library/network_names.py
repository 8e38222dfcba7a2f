"""What tensors are called in files of small networks (LoRA and its kin), in every layout that people share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

UP, DOWN, MIDDLE = "lora_up.weight", "lora_down.weight", "lora_mid.weight"
UP_BIAS = "lora_up.bias"
SCALE = "dora_scale"
# Names of one module's tensors, after the module's own name and a dot, as they are here and elsewhere.
NAMES: Mapping[str, str] = MappingProxyType({
    UP: UP, DOWN: DOWN, MIDDLE: MIDDLE, "lora_B.weight": UP, "lora_A.weight": DOWN, "lora_B.default.weight": UP,
    "lora_A.default.weight": DOWN, "lora.up.weight": UP, "lora.down.weight": DOWN, "lora_linear_layer.up.weight": UP,
    "lora_linear_layer.down.weight": DOWN, "lora_magnitude_vector": SCALE, "lora_magnitude_vector.weight": SCALE,
    "lora_magnitude_vector.default.weight": SCALE, "lora_B.bias": UP_BIAS, "lora_B.default.bias": UP_BIAS,
    "ia3_l.default": "ia3_l",
    **{name: name for name in (
        "alpha", SCALE, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1",
        "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "weight", "on_input", "diff",
        "diff_b", "w_norm", "b_norm", "a1.weight", "a2.weight", "b1.weight", "b2.weight", "oft_blocks", "oft_diag",
        "rescale", "ia3_l")},
})
PEFT = "base_model.model."
_PROCESSOR = re.compile(r"(.+)\.processor\.(to_[qkv]|to_out)_lora\.(up|down)\.weight")
_ORDERED = re.compile(r"(unet|text_encoder):(\d+):(up|down)")
_LONGEST = max(name.count(".") for name in NAMES) + 1


def split(key: str) -> tuple[str, str] | None:
    """Return a module's name and which of ``NAMES`` a tensor of it is; None for what is neither.

    Modules that a file numbers (``ordered``) are called by their component and number.
    """
    key = key.removeprefix(PEFT)
    if match := _PROCESSOR.fullmatch(key):
        return f"{match[1]}.{match[2].replace('to_out', 'to_out.0')}", _side(match[3])
    if place := ordered(key):
        return f"{place[0]}:{place[1]}", place[2]
    pieces = key.split(".")
    for count in range(min(_LONGEST, len(pieces) - 1), 0, -1):
        suffix = ".".join(pieces[-count:])
        if suffix in NAMES:
            return ".".join(pieces[:-count]), NAMES[suffix]
    return None


def ordered(key: str) -> tuple[str, int, str] | None:
    """Return component, number and name of a tensor where modules have numbers, as lora_diffusion's; None elsewhere."""
    match = _ORDERED.fullmatch(key)
    return (match[1], int(match[2]), _side(match[3])) if match else None


def _side(text: str) -> str:
    return UP if text == "up" else DOWN
