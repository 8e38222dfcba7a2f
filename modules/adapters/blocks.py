"""Weights by block of the denoiser: ``lbw=`` with 17 or 26 values (SD), 12 or 20 (SDXL), or a name."""

from __future__ import annotations

from collections.abc import Mapping

from modules.core.errors import InvalidRequest


def _numbered(kind: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{kind}{number:02}" for number in numbers)


LAYOUTS: Mapping[int, tuple[str, ...]] = {
    12: ("BASE", *_numbered("IN", 4, 5, 7, 8), "M00", *_numbered("OUT", *range(6))),
    17: ("BASE", *_numbered("IN", 1, 2, 4, 5, 7, 8), "M00", *_numbered("OUT", *range(3, 12))),
    20: ("BASE", *_numbered("IN", *range(9)), "M00", *_numbered("OUT", *range(9))),
    26: ("BASE", *_numbered("IN", *range(12)), "M00", *_numbered("OUT", *range(12))),
}
# Over the blocks of 17 values, by the names that people write.
PRESETS: Mapping[str, str] = {
    "NONE": "00000000000000000", "INS": "11100000000000000", "IND": "10001110000000000",
    "MIDD": "10001111111100000", "OUTD": "10000000111100000", "OUTS": "10000000000011111",
}
# Those that mean whole sides: SDXL attends in blocks that the 17 of Stable Diffusion leave out.
SIDES: Mapping[str, tuple[str, ...]] = {"ALL": ("BASE", "IN", "M", "OUT"), "INALL": ("BASE", "IN"),
                                        "OUTALL": ("BASE", "OUT")}


def block_weights(text: str) -> Mapping[str, float]:
    """Return the weight of each block that ``text`` names; blocks that it does not name have 0.

    Raises ``InvalidRequest`` for an unknown name, another number of values, or what is no number.
    """
    if text.upper() in SIDES:
        return {block: float(block.startswith(SIDES[text.upper()])) for block in LAYOUTS[26]}
    if text.upper() in PRESETS:
        return dict(zip(LAYOUTS[17], map(float, PRESETS[text.upper()]), strict=True))
    values = text.split(",")
    if len(values) not in LAYOUTS:
        raise InvalidRequest(f"lbw={text[:60]}: {len(values)} values.",
                             f"Give 17 or 26 (SD), 12 or 20 (SDXL), or one of {', '.join((*PRESETS, *SIDES))}.")
    try:
        return dict(zip(LAYOUTS[len(values)], map(float, values), strict=True))
    except ValueError as error:
        raise InvalidRequest(f"lbw={text[:60]} holds what is no number.") from error
