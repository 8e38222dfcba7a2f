"""What a model file is and what it is made of, from its header alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modules.core.errors import InvalidModel
from modules.core.merge_blocks import component_of
from modules.families import FAMILIES, checkpoint, detect
from modules.families.compatibility import family_of
from modules.library.files import CHECKPOINT, CONTROLNET, EMBEDDING, FACE, HYPERNETWORK, LORA, UPSCALER, VAE, VAE_APPROX
from modules.library.headers import Header
from modules.library.network_names import DOWN, PEFT, SCALE, split
from modules.library.tensors import TensorInfo

LABELS: Mapping[str, str] = {
    CHECKPOINT: "Checkpoint", LORA: "LoRA", VAE: "VAE", VAE_APPROX: "Decoder of previews", EMBEDDING: "Embedding",
    UPSCALER: "Upscaler", CONTROLNET: "ControlNet", HYPERNETWORK: "Hypernetwork", FACE: "Network for faces",
}
ROLES = {"inpaint": "inpainting", "edit": "editing", "depth": "depth", "refiner": "refiner"}
OTHER, AVERAGED = "other", "unet (EMA)"
# The kinds of networks by the tensors of their modules; the first side of the ranked ones is the rank.
RANKED: Mapping[str, str] = {DOWN: "LoRA", "hada_w1_b": "LoHa", "lokr_w1_b": "LoKr", "lokr_w2_b": "LoKr"}
UNRANKED: Mapping[str, str] = {
    "lokr_w1": "LoKr", "oft_blocks": "OFT", "oft_diag": "OFT", "on_input": "IA3", "ia3_l": "IA3", "a1.weight": "GLoRA",
    "diff": "Full", "diff_b": "Full", "w_norm": "Full", "b_norm": "Full", SCALE: "DoRA",
}
_NETWORK_PARTS = tuple((part, re.compile(pattern)) for part, pattern in (
    ("text_encoder_2", r"lora_te2_|text_encoder_2\.|lycoris_text_encoder_2_"),
    ("text_encoder", r"lora_te1?_|text_encoder[.:]|lycoris_text_encoder_"),
    ("embeddings", r"bundle_emb\."),
    ("unet", r"lora_unet_|lycoris_|unet[.:]|diffusion_model\.|model\.diffusion_model\.|(?:down|mid|up)_blocks?\."),
))
_ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "ESRGAN (RRDBNet)": ("RRDB_trunk.", "model.1.sub.", "body.0.rdb1."), "DAT": ("layers.0.blocks.0.attn.attns",),
    "SwinIR": ("layers.0.residual_group.",), "SCUNet": ("m_body.",),
}


@dataclass(frozen=True)
class Part:
    """A component, or what else belongs together: how many ``tensors`` and numbers, in which types.

    ``dtypes`` counts tensors by safetensors' names of types, ``ranks`` a network's modules by their rank.
    """

    name: str
    tensors: int
    elements: int
    bytes: int
    dtypes: Mapping[str, int]
    ranks: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What a header shows: ``what`` in words, its family's id (empty where unknown), its ``parts``.

    ``details`` are further facts by labels for people. ``problem`` says why a checkpoint cannot be used, else empty.
    """

    what: str
    family: str
    layout: str
    details: Mapping[str, str]
    parts: tuple[Part, ...]
    problem: str = ""

    @property
    def elements(self) -> int:
        """How many numbers the file holds."""
        return sum(part.elements for part in self.parts)

    @property
    def bytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(part.bytes for part in self.parts)


def inspect(kind: str, header: Header) -> Inspection:
    """Return what the header of a file among those of ``kind`` shows."""
    if kind == UPSCALER and _is_diffusion(header):
        kind = CHECKPOINT
    family, problem = family_of(kind, header), ""
    what, details = _named(LABELS[kind], family), dict[str, str]()
    if kind == CHECKPOINT:
        try:
            what, details = _checkpoint(header)
        except InvalidModel as error:
            what, problem = "Checkpoint that cannot be used", str(error)
    elif kind == LORA:
        what = _named(_network(header.tensors), family)
    elif kind == EMBEDDING:
        details = _vectors(header.tensors)
    elif kind == UPSCALER:
        what = _upscaler(header.tensors)
    return Inspection(what, family, header.layout, details, _parts(kind, header), problem)


def matching(header: Header, text: str) -> list[tuple[str, TensorInfo]]:
    """Return the tensors whose names hold every word of ``text``, sorted by name, numbers in names by value."""
    words = text.lower().split()
    found = [(name, info) for name, info in header.tensors.items() if all(word in name.lower() for word in words)]
    return sorted(found, key=lambda item: _order(item[0]))


def _order(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d{1,9})", name)]


def _named(label: str, family: str) -> str:
    name = next((one.name for one in FAMILIES if one.id == family), "")
    return f"{label} for {name}" if name else label


def _checkpoint(header: Header) -> tuple[str, dict[str, str]]:
    family, variant = detect(header)
    role = ROLES.get(variant.takes or variant.role, "")
    stated = "prediction_type" in variant.components["scheduler"]
    details = {
        "Prediction": variant.prediction.replace("_prediction", "") + ("" if stated else " (the file does not say)"),
        "Size of pictures": f"{variant.default_size} pixels",
        "Channels of latents": str(variant.latent.channels),
    }
    if "zero_terminal_snr" in variant.components["scheduler"]:
        details["Noise schedule"] = "ends in pure noise (zero terminal SNR)"
    towers = [name for name in variant.components if name.startswith("text_encoder")]
    missing = [label for label, there in (("VAE", "vae" in variant.components), ("text encoder", towers)) if not there]
    if missing:
        details["Missing"] = ", ".join(missing)
    return f"{family.name}{f', {role} model' if role else ''}", details


def _network(tensors: Mapping[str, TensorInfo]) -> str:
    there = {place[1] for place in map(split, tensors) if place}
    kinds = [kind for name, kind in {**RANKED, **UNRANKED}.items() if name in there]
    return " and ".join(dict.fromkeys(kinds)) or "Network of no kind known here"


def _vectors(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    shapes = {name: info.shape for name, info in tensors.items() if len(info.shape) in (1, 2)}
    return {name: f"{shape[0] if len(shape) == 2 else 1} vectors of {shape[-1]}" for name, shape in shapes.items()}


def _is_diffusion(header: Header) -> bool:
    """Return whether a file among upscalers is a diffusion model that enlarges pictures, with a checkpoint's parts."""
    try:
        return detect(header)[1].role == "upscaler"
    except InvalidModel:
        return False


def _upscaler(tensors: Mapping[str, TensorInfo]) -> str:
    names = "\n".join(tensors)
    name = next((name for name, signs in _ARCHITECTURES.items() if any(sign in names for sign in signs)), "")
    return f"Upscaler, {name}" if name else LABELS[UPSCALER]


def _parts(kind: str, header: Header) -> tuple[Part, ...]:
    groups: dict[str, list[tuple[str, TensorInfo]]] = {}
    for name, info in header.tensors.items():
        groups.setdefault(part_of(kind, header, name), []).append((name, info))
    return tuple(_summed(name, tensors) for name, tensors in sorted(groups.items()))


def part_of(kind: str, header: Header, name: str) -> str:
    """Return the part of a file that its tensor ``name`` is of: a component, or what else belongs together."""
    if header.components:
        return name.partition(".")[0]
    if kind == CHECKPOINT:
        if name.startswith("model_ema."):
            return AVERAGED
        return component_of(name) or ("unet" if checkpoint.is_of_denoiser(name) else OTHER)
    if kind == LORA:
        return next((part for part, pattern in _NETWORK_PARTS if pattern.match(name.removeprefix(PEFT))), OTHER)
    if kind == VAE:
        found = re.match(r"(?:first_stage_model\.|vae\.)?(encoder|decoder)\.", name)
        return found[1] if found else OTHER
    return "weights"


def _summed(name: str, tensors: Sequence[tuple[str, TensorInfo]]) -> Part:
    infos = [info for _, info in tensors]
    dtypes = Counter(info.dtype for info in infos)
    return Part(name, len(infos), sum(info.elements for info in infos), sum(info.bytes for info in infos),
                dict(dtypes.most_common()), dict(sorted(_ranks(tensors).items())))


def _ranks(tensors: Iterable[tuple[str, TensorInfo]]) -> Counter[int]:
    places = ((split(name), info.shape) for name, info in tensors)
    by_module = {place[0]: shape[0] for place, shape in places if place and place[1] in RANKED and shape}
    return Counter(by_module.values())
