"""Which numbers a tensor is merged with: block weights, presets by name, and rules by component and element.

Blocks and their order are those of merge-block-weighted and SuperMerger: BASE, then the denoiser's input blocks, its
middle, its output blocks. The time's embedding counts to the first block, the last convolution to the last one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modules.core.errors import InvalidRequest

BASE = "BASE"
SIDE = {"sd1": 12, "sdxl": 9}
MAX_RULES = 200
COMPONENTS = ("unet", "text_encoder", "text_encoder_2", "vae")
_BLOCK = re.compile(r"model\.diffusion_model\.(input|output)_blocks\.(\d+)\.")
_RANGE = re.compile(r"(IN|OUT|M)(\d{1,2})-(IN|OUT|M)(\d{1,2})")
_NAME = re.compile(r"(IN|OUT)\d{1,2}|M00|IN|OUT|M|BASE")


def blocks(side: int) -> tuple[str, ...]:
    """Return the names of all blocks with ``side`` input blocks and as many output blocks: BASE, IN00, …, OUT11."""
    return (BASE, *(f"IN{i:02}" for i in range(side)), "M00", *(f"OUT{i:02}" for i in range(side)))


def side_of(names: Mapping[str, object]) -> int:
    """Return how many output blocks a denoiser with tensors of these ``names`` has."""
    numbers = [int(found[2]) for name in names if (found := _BLOCK.match(name)) and found[1] == "output"]
    return max(numbers, default=-1) + 1


def component_of(name: str) -> str:
    """Return the component that a tensor of a single file is of; empty for what is of none, such as EMA weights."""
    if name.startswith("model.diffusion_model."):
        return "unet"
    if name.startswith("first_stage_model."):
        return "vae"
    if name.startswith(("conditioner.embedders.1.", "conditioner.embedders.0.model.")):
        return "text_encoder_2"
    return "text_encoder" if name.startswith(("cond_stage_model.", "conditioner.embedders.0.")) else ""


def block_of(name: str, side: int) -> str:
    """Return the block that a tensor of a single file is in."""
    found = _BLOCK.match(name)
    if found:
        return f"{'IN' if found[1] == 'input' else 'OUT'}{int(found[2]):02}"
    if name.startswith("model.diffusion_model.middle_block."):
        return "M00"
    if name.startswith("model.diffusion_model.time_embed."):
        return "IN00"
    return f"OUT{side - 1:02}" if name.startswith("model.diffusion_model.out.") else BASE


@dataclass(frozen=True)
class Rule:
    """``alpha`` for the tensors in any of ``places`` (blocks, components) with any of ``elements`` in the name.

    Empty means everywhere, and any tensor.
    """

    places: frozenset[str]
    elements: tuple[str, ...]
    alpha: float


@dataclass(frozen=True)
class Ratios:
    """Alpha and beta of every tensor: ``alpha(name)``, ``beta(name)``; later rules win over earlier ones."""

    side: int
    alphas: Mapping[str, float]
    betas: Mapping[str, float]
    rules: tuple[Rule, ...]

    def alpha(self, name: str) -> float:
        """Return the first number for the tensor ``name``."""
        block, component = block_of(name, self.side), component_of(name)
        value = self.alphas[block]
        for rule in self.rules:
            here = not rule.places or block in rule.places or component in rule.places
            if here and (not rule.elements or any(element in name for element in rule.elements)):
                value = rule.alpha
        return value

    def beta(self, name: str) -> float:
        """Return the second number for the tensor ``name``."""
        return self.betas[block_of(name, self.side)]


def ratios(numbers: tuple[float, float], weights: tuple[str, str], rules: str, side: int) -> Ratios:
    """Return alpha and beta of a denoiser with ``side`` blocks on each side.

    ``numbers`` hold everywhere, ``weights`` (texts) instead of them where given. Raises ``InvalidRequest``.
    """
    alphas, betas = (_by_block(number, text, side) for number, text in zip(numbers, weights, strict=True))
    return Ratios(side, alphas, betas, parse_rules(rules))


def _by_block(number: float, text: str, side: int) -> dict[str, float]:
    names = blocks(side)
    values = parse_weights(text, side)
    if values is None:
        return dict.fromkeys(names, number)
    if len(values) == len(names) - 1:
        values = (number, *values)
    if len(values) != len(names):
        raise InvalidRequest(f"Block weights: {len(values)} values; this model takes {len(names)}, or "
                             f"{len(names) - 1} without BASE.", "25 or 26 for Stable Diffusion 1, 19 or 20 for XL.")
    return dict(zip(names, values, strict=True))


def parse_weights(text: str, side: int = SIDE["sd1"]) -> tuple[float, ...] | None:
    """Return the block weights of ``text``, values or a preset's name; None for an empty text."""
    text = text.strip()
    if not text:
        return None
    if text.upper() in PRESETS:
        return preset(text, side)
    try:
        values = tuple(float(value) for value in re.split(r"[\s,;]+", text.strip(" ,;")))
    except ValueError:
        raise InvalidRequest(f"Block weights: {text[:60]!r} is neither a list of numbers nor a preset.",
                             f"Presets are {', '.join(PRESETS)}.") from None
    if not all(-4.0 <= value <= 4.0 for value in values):
        raise InvalidRequest("Block weights: a value is outside -4 to 4.")
    return values


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Return the rules of ``text``, one a line or separated by ``;``: ``blocks:elements:alpha``, as SuperMerger's.

    Blocks are names, ranges (``IN00-OUT03``), sides (``IN``, ``OUT``) or components (``unet``, ``text_encoder``,
    ``text_encoder_2``, ``vae``), elements parts of tensors' names (``attn2``); both may be several, or empty for all.
    ``#`` begins a comment. Raises ``InvalidRequest``.
    """
    lines = [line.split("#")[0].strip() for line in re.split(r"[\n;]", text)]
    found = tuple(_rule(line) for line in lines if line)
    if len(found) > MAX_RULES:
        raise InvalidRequest(f"At most {MAX_RULES} rules are read.")
    return found


def _rule(line: str) -> Rule:
    parts = [part.strip() for part in line.split(":")]
    try:
        places, elements, alpha = parts
        number = float(alpha)
    except ValueError:
        raise InvalidRequest(f"Rules: {line[:60]!r} is not understood.",
                             "Write blocks:elements:ratio, such as OUT00-OUT05:attn2:0.7 or vae::0.") from None
    if not -4.0 <= number <= 4.0:
        raise InvalidRequest(f"Rules: {alpha} is outside -4 to 4.")
    named = frozenset(name for word in re.split(r"[\s,]+", places) if word for name in _places(word))
    return Rule(named, tuple(re.split(r"[\s,]+", elements)) if elements else (), number)


def _places(word: str) -> tuple[str, ...]:
    order = blocks(SIDE["sd1"])
    if word.lower() in COMPONENTS:
        return (word.lower(),)
    word = word.upper()
    span = _RANGE.fullmatch(word)
    if span:
        ends = [f"{span[1]}{int(span[2]):02}", f"{span[3]}{int(span[4]):02}"]
        if all(end in order for end in ends) and order.index(ends[0]) <= order.index(ends[1]):
            return order[order.index(ends[0]):order.index(ends[1]) + 1]
    elif _NAME.fullmatch(word):
        digits = word.lstrip("INOUTM")
        return tuple(name for name in order if name == word or (
            name.startswith(word) if not digits else name == f"{word[:-len(digits)]}{int(digits):02}"))
    raise InvalidRequest(f"Rules: {word[:40]!r} is no block and no component.",
                         f"Blocks are BASE, IN00 to IN11, M00, OUT00 to OUT11; components {', '.join(COMPONENTS)}.")


def preset(name: str, side: int) -> tuple[float, ...]:
    """Return the weights of the preset ``name``, BASE first, as those of merge-block-weighted; 0 keeps A, 1 takes B."""
    count = 2 * side + 1
    curve = PRESETS[name.upper()]
    return (curve.base, *(round(curve.at(i / (count - 1)), 6) for i in range(count)))


@dataclass(frozen=True)
class Curve:
    """A preset: the weight ``at`` a position from 0 (the first block) to 1 (the last), and that of BASE."""

    at: Callable[[float], float]
    base: float = 0.0


def _smooth(x: float) -> float:
    return x * x * (3.0 - 2.0 * x)


def _repeated(times: int) -> Callable[[float], float]:
    return lambda x: _smooth(1.0 if x == 1.0 else (x * times) % 1.0)


def _ends(blocks_a_side: int) -> Callable[[float], float]:
    # Of SD1's 25 blocks, so many at either end.
    return lambda x: float(min(x, 1.0 - x) * 24 < blocks_a_side - 0.5)


def _last(number: int, middle: float = 0.0) -> Callable[[float], float]:
    def at(x: float) -> float:
        place = x * 24
        return 1.0 if place > 24 - number + 0.5 else middle if abs(x - 0.5) < 1e-9 else 0.0
    return at


def _reversed(curve: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: 1.0 - curve(x)


def _cosine(x: float) -> float:
    return (1.0 - math.cos(math.pi * x)) / 2.0


PRESETS: Mapping[str, Curve] = MappingProxyType(dict((
    ("ALL_A", Curve(lambda x: 0.0)), ("ALL_B", Curve(lambda x: 1.0, 1.0)),
    ("FLAT_25", Curve(lambda x: 0.25)), ("FLAT_75", Curve(lambda x: 0.75)),
    ("GRAD_V", Curve(lambda x: abs(2.0 * x - 1.0))), ("GRAD_A", Curve(lambda x: 1.0 - abs(2.0 * x - 1.0))),
    ("WRAP08", Curve(_ends(4))), ("WRAP12", Curve(_ends(6))), ("WRAP14", Curve(_ends(7))), ("WRAP16", Curve(_ends(8))),
    ("MID12_50", Curve(lambda x: 0.5 * (abs(x - 0.5) * 24 < 6.5))),
    ("OUT07", Curve(_last(7))), ("OUT12", Curve(_last(12))), ("OUT12_5", Curve(_last(12, 0.5))),
    ("SMOOTHSTEP", Curve(_smooth)), ("REVERSE_SMOOTHSTEP", Curve(_reversed(_smooth))),
    ("2SMOOTHSTEP", Curve(_repeated(2))), ("R_2SMOOTHSTEP", Curve(_reversed(_repeated(2)))),
    ("3SMOOTHSTEP", Curve(_repeated(3))), ("R_3SMOOTHSTEP", Curve(_reversed(_repeated(3)))),
    ("4SMOOTHSTEP", Curve(_repeated(4))), ("R_4SMOOTHSTEP", Curve(_reversed(_repeated(4)))),
    ("HALF_SMOOTHSTEP", Curve(lambda x: _smooth(x / 2))), ("HALF_R_SMOOTHSTEP", Curve(lambda x: 1 - _smooth(x / 2))),
    ("COSINE", Curve(_cosine)), ("REVERSE_COSINE", Curve(_reversed(_cosine))),
)))
