"""What a merge of checkpoints asks for: the recipe, the methods by name, and what is wrong with a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from modules.core.errors import InvalidRequest
from modules.core.merge_blocks import parse_rules, parse_weights

KIND = "merge"
SAFETENSORS, CKPT, DIFFUSERS = "safetensors", "ckpt", "diffusers"
FORMATS = (SAFETENSORS, CKPT, DIFFUSERS)
AS_STORED = ""
DTYPES = (AS_STORED, "float32", "float16", "bfloat16", "float8_e4m3fn")
DROP_EMA, KEEP_EMA, USE_EMA = "drop", "keep", "use"
EMA = (DROP_EMA, KEEP_EMA, USE_EMA)
FROM_ANY, FROM_B, FROM_C, NO_CONFIG = "any", "b", "c", "none"
CONFIGS = (FROM_ANY, FROM_B, FROM_C, NO_CONFIG)
MAX_NAME = 150
MAX_TEXT = 100_000
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class MethodInfo:
    """A way to merge: its ``label``, how many ``models`` it takes, and what its two numbers are; empty for none."""

    id: str
    label: str
    models: int
    formula: str
    alpha: str = "Multiplier"
    beta: str = ""


NO_INTERPOLATION, WEIGHTED_SUM, ADD_DIFFERENCE = "no_interpolation", "weighted_sum", "add_difference"
METHODS: Mapping[str, MethodInfo] = MappingProxyType({method.id: method for method in (
    MethodInfo(NO_INTERPOLATION, "No interpolation", 1, "A: converted, pruned, or with another VAE", alpha=""),
    MethodInfo(WEIGHTED_SUM, "Weighted sum", 2, "A * (1 - M) + B * M"),
    MethodInfo(ADD_DIFFERENCE, "Add difference", 3, "A + (B - C) * M"),
    MethodInfo("tensor_sum", "Tensor sum", 2, "B's rows from beta on, a share alpha of them; A's others", "Share of B",
               "Offset"),
    MethodInfo("triple_sum", "Triple sum", 3, "A * (1 - alpha - beta) + B * alpha + C * beta", "Share of B",
               "Share of C"),
    MethodInfo("sum_twice", "Sum twice", 3, "(A * (1 - alpha) + B * alpha) * (1 - beta) + C * beta", "Share of B",
               "Share of C"),
    MethodInfo("train_difference", "Train difference", 3, "A + B - C where B is far from A, as if trained"),
    MethodInfo("smooth_add", "Smooth add", 3, "A + smoothed (B - C) * M"),
    MethodInfo("cosine_a", "Cosine A", 2, "A where it points as B, B elsewhere; directions of columns"),
    MethodInfo("cosine_b", "Cosine B", 2, "A where it points as B, B elsewhere; as they are"),
    MethodInfo("similarity_add_difference", "Similarity add difference", 3,
               "add difference where A and B differ, a sum where they are similar", beta="Similarity"),
    MethodInfo("multiply_difference", "Multiply difference", 3,
               "C + |A - C|^(1 - alpha) * |B - C|^alpha, signs from A and B by beta", beta="Sign from B"),
    MethodInfo("slerp", "SLERP", 2, "along the arc from A to B"),
    MethodInfo("ties", "TIES", 3, "C + M * the agreeing largest of A - C and B - C", "Strength", "Share kept"),
    MethodInfo("dare", "DARE", 3, "A + M * (B - C), a random share of it kept and rescaled", beta="Share kept"),
)})


@dataclass(frozen=True)
class Recipe:
    """Models to merge and how; checkpoints by any of their names.

    ``alpha`` and ``beta`` are the method's numbers, ``block_alpha`` and ``block_beta`` replace them block by block
    (values or a preset's name), ``rules`` (``blocks:elements:alpha``, see ``merge_blocks``) wherever they fit.
    ``dtype`` empty leaves each tensor in the type that A has it in. ``ema`` drops averaged weights, keeps them, or
    takes them for the denoiser. ``vae`` is baked in. ``loras`` are added, called by tags as in a prompt.
    ``discard`` is a regular expression of names to leave out.
    ``config`` says whose yaml is copied. The rest is A1111's metadata.
    """

    model_a: str = ""
    model_b: str = ""
    model_c: str = ""
    method: str = WEIGHTED_SUM
    alpha: float = 0.3
    beta: float = 0.5
    block_alpha: str = ""
    block_beta: str = ""
    rules: str = ""
    seed: int = 0
    name: str = ""
    format: str = SAFETENSORS
    dtype: str = AS_STORED
    ema: str = DROP_EMA
    vae: str = ""
    loras: str = ""
    discard: str = ""
    config: str = FROM_ANY
    save_metadata: bool = True
    add_recipe: bool = True
    copy_metadata: bool = True
    metadata_json: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that take part: A, then B and C where the method takes them."""
        return (self.model_a, self.model_b, self.model_c)[:METHODS[self.method].models]


def check_recipe(recipe: Recipe) -> Recipe:
    """Return ``recipe`` unchanged, or raise ``InvalidRequest`` naming what is wrong."""
    _among("method", recipe.method, tuple(METHODS))
    _among("format", recipe.format, FORMATS)
    _among("dtype", recipe.dtype, DTYPES)
    _among("ema", recipe.ema, EMA)
    _among("config", recipe.config, CONFIGS)
    for letter, name in zip("ABC", recipe.models, strict=False):
        if not name:
            raise InvalidRequest(f"Model {letter} is not chosen.", f"{METHODS[recipe.method].label} takes it.")
    for label, value in (("alpha", recipe.alpha), ("beta", recipe.beta)):
        if not -4.0 <= value <= 4.0:
            raise InvalidRequest(f"{label} must be from -4 to 4, not {value}.")
    for text in (recipe.rules, recipe.block_alpha, recipe.block_beta, recipe.loras, recipe.discard,
                 recipe.metadata_json):
        if len(text) > MAX_TEXT:
            raise InvalidRequest("A text of the recipe is too long.")
    parse_weights(recipe.block_alpha)
    parse_weights(recipe.block_beta)
    parse_rules(recipe.rules)
    if recipe.name:
        check_name(recipe.name)
    return recipe


def check_name(name: str) -> str:
    """Return the name of a file that is to be written, without its suffix; raises ``InvalidRequest``."""
    stem = re.sub(r"\.(safetensors|ckpt)$", "", name.strip(), flags=re.IGNORECASE)
    if _FORBIDDEN.search(stem) or stem.startswith(".") or stem.endswith((".", " ")) or not stem:
        raise InvalidRequest(f"{name[:80]!r} cannot be a file's name.",
                             "Write a name without folders and without any of / \\ : * ? \" < > |.")
    if any(0xD800 <= ord(character) < 0xE000 for character in stem):
        raise InvalidRequest("The name holds half a character.", "Write it anew.")
    if len(stem.encode()) > MAX_NAME:
        raise InvalidRequest(f"The name is longer than {MAX_NAME} bytes.", "Choose a shorter one.")
    if re.search(r"\.vae$", stem, re.IGNORECASE):
        raise InvalidRequest("A name that ends in .vae would be listed as a VAE.", "Choose another.")
    return stem


def file_name(recipe: Recipe, stem: str) -> str:
    """Return what a merge with the name ``stem`` is called on disk: a file, or for ``diffusers`` a folder."""
    return stem if recipe.format == DIFFUSERS else f"{stem}.{recipe.format}"


def config_name(recipe: Recipe, stem: str) -> str:
    """Return what the configuration of a merge is called that is kept beside a file; a folder holds its own."""
    return stem if recipe.format == DIFFUSERS else f"{stem}.yaml"


def usual_name(recipe: Recipe, stems: Sequence[str], loras: Sequence[str] = ()) -> str:
    """Return the name of a merge of models with ``stems`` that has none of its own, as A1111 forms it.

    ``loras`` are the names of those that are added.
    """
    a, b, c = (*stems, "", "")[:3]
    multiplier = f"{round(recipe.alpha, 3):g}"
    if recipe.method == NO_INTERPOLATION:
        name = f"{a}-{recipe.dtype}" if recipe.dtype else a if loras else f"{a}-copy"
    elif recipe.method == WEIGHTED_SUM:
        name = f"{round(1 - recipe.alpha, 3):g}({a}) + {multiplier}({b})"
    elif recipe.method == ADD_DIFFERENCE:
        name = f"{a} + {multiplier}({b} - {c})"
    else:
        numbers = (multiplier, f"{round(recipe.beta, 3):g}")[:2 if METHODS[recipe.method].beta else 1]
        name = f"{METHODS[recipe.method].label} {' '.join(numbers)} ({', '.join(stems)})"
    name = " + ".join((name, *loras))
    return name if len(name.encode()) <= MAX_NAME else f"{recipe.method} {abs(hash_text(name)):08x}"


def hash_text(text: str) -> int:
    """Return 32 bits of ``text`` that are the same on every machine (FNV-1a)."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def _among(label: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidRequest(f"{label}: {value[:60]!r} is none of {', '.join(choice for choice in choices if choice)}.")
