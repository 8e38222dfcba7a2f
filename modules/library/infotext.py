"""A1111's infotext: the text beside a picture from which it can be made again.

    prompt, of any number of lines
    Negative prompt: also of any number of lines
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 123, b: 456"
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modules.core.settings import Settings, setting_infos

NEGATIVE_PROMPT = "Negative prompt:"
# How the names of settings begin that matter where a diffusion model enlarges a picture.
OF_DIFFUSION_UPSCALERS = "x4 upscaler "

# A key is bounded so that a line of a million letters is not scanned from each of them.
_PARAMETER = re.compile(r'(\w[\w \-/]{1,199}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_MIN_PARAMETERS = 3

_NOVELAI_SAMPLERS: Mapping[str, str] = MappingProxyType({
    "k_euler": "Euler", "k_euler_ancestral": "Euler a", "k_lms": "LMS", "k_heun": "Heun", "k_dpm_2": "DPM2",
    "k_dpm_2_ancestral": "DPM2 a", "k_dpm_fast": "DPM fast", "k_dpm_adaptive": "DPM adaptive",
    "k_dpmpp_2m": "DPM++ 2M", "k_dpmpp_sde": "DPM++ SDE", "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE", "ddim": "DDIM", "ddim_v3": "DDIM", "plms": "PLMS",
})


@dataclass(frozen=True)
class Infotext:
    """A parsed infotext. ``parameters`` are texts by key, in order; ``Size`` is given as ``Size-1`` and ``Size-2``."""

    prompt: str = ""
    negative_prompt: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def format(prompt: str, negative_prompt: str, parameters: Mapping[str, str | int | float | None]) -> str:
    """Return the infotext; parameters that are None are left out.

    Values with a comma, colon or line break are quoted as JSON texts, as A1111 does, and so are those that would
    otherwise not be read back: with a quote in front or white space at an end.
    """
    written = ", ".join(f"{_key(key)}: {quote(value)}" for key, value in parameters.items() if value is not None)
    negative = f"\n{NEGATIVE_PROMPT} {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n{written}".strip()


def parse(text: str) -> Infotext:
    """Return what ``text`` says; never raises, for a text of any kind is at least a prompt.

    The last line counts as parameters if at least three are found in it. A quoted value is unquoted; a value like
    ``512x768`` under ``Size`` becomes ``Size-1`` and ``Size-2``. Samplers' names are kept as written.
    """
    *lines, last = text.strip().split("\n")
    found = _PARAMETER.findall(last)
    if len(found) < _MIN_PARAMETERS:
        lines, found = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE_PROMPT):
            part, line = negative, line.removeprefix(NEGATIVE_PROMPT).strip()
        part.append(line)
    return Infotext(_joined(prompt), _joined(negative), _parameters(found))


def changed_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that change the picture and differ from the infotext's defaults, by infotext name.

    ``RNG`` is always written: readers take a missing one for ``GPU``.
    """
    defaults = Settings()
    return {
        info.infotext: number(getattr(settings, name))
        for name, info in setting_infos().items()
        if info.infotext and (name == "randn_source" or getattr(settings, name) != getattr(defaults, name))
    }


def number(value: Any) -> str:
    """Write 7.0 as 7, as old infotexts do; what is no number of floating point as it is."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def joined_sizes(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return parsed ``parameters`` as they are written: sizes that ``parse`` has split in two are one entry again."""
    joined: dict[str, str] = {}
    for key, value in parameters.items():
        name, _, side = key.rpartition("-")
        if side == "1" and f"{name}-2" in parameters:
            joined[name] = f"{value}x{parameters[f'{name}-2']}"
        elif not (side == "2" and f"{name}-1" in parameters):
            joined[key] = value
    return joined


def quote(value: str | int | float) -> str:
    """Return ``value`` as it stands in an infotext."""
    text = str(value)
    plain = not any(mark in text for mark in ',:\n') and text == text.strip() and not text.startswith('"')
    return text if plain else json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """Return the value that ``quote`` wrote; a text that is no JSON text is its own value."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def from_novelai(description: str, comment: str, width: int, height: int) -> str:
    """Return the infotext of a picture by NovelAI, from its ``Description`` and its ``Comment`` (JSON).

    Clip skip 2 and ENSD 31337 are how NovelAI's pictures are made again here. Empty where ``comment`` is no object.
    """
    try:
        facts = json.loads(comment)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(facts, dict):
        return ""
    parameters: dict[str, Any] = {
        "Steps": facts.get("steps"),
        "Sampler": _NOVELAI_SAMPLERS.get(str(facts.get("sampler")), "Euler a"),
        "CFG scale": facts.get("scale"),
        "Seed": facts.get("seed"),
        "Size": f"{width}x{height}",
        "Clip skip": 2,
        "ENSD": 31337,
    }
    return format(description, str(facts.get("uc") or ""), parameters)


def _key(key: str) -> str:
    return re.sub(r"[^\w \-/]", "_", key).strip()


def _joined(lines: list[str]) -> str:
    # A1111 begins a prompt with its first line that is not empty.
    return "\n".join(lines).lstrip("\n")


def _parameters(found: list[tuple[str, str]]) -> dict[str, str]:
    result: dict[str, str] = {}
    for key, value in found:
        size = _SIZE.fullmatch(value)
        if size:
            result[f"{key}-1"], result[f"{key}-2"] = size[1], size[2]
        else:
            result[key] = unquote(value)
    return result
