"""A1111's script ``X/Y/Z plot`` over its API: arguments in its order, axes by their place in its list or by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from modules.core import codec
from modules.core.axes import find_axis
from modules.core.errors import InvalidRequest
from modules.core.grid import NOTHING, TITLE, Grid, has_axis, join

NAME = TITLE.lower()
# Axes of A1111 that do not exist here, by the one that they follow there: they keep their places.
ABSENT: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "Face restore": ("Token merging ratio", "Token merging ratio high-res")})
# In A1111's order: for each axis its type, its values as text and as a list; then these with their defaults.
OPTIONS: Mapping[str, Any] = MappingProxyType({
    "draw_legend": True, "include_lone_images": False, "include_sub_grids": False, "no_fixed_seeds": False,
    "vary_seeds_x": False, "vary_seeds_y": False, "vary_seeds_z": False, "margin_size": 0, "csv_mode": False})
AXIS_ARGUMENTS = ("type", "values", "values_dropdown")


def arguments() -> dict[str, Any]:
    """Return the script's arguments in A1111's order, with their defaults."""
    axes = {f"{axis}_{name}": default for axis in "xyz"
            for name, default in zip(AXIS_ARGUMENTS, (0, "", []), strict=True)}
    return axes | dict(OPTIONS)


def labels(tab: str, app: Any) -> tuple[str, ...]:
    """Return the labels of the axes in ``tab`` in A1111's order, then those that it does not have."""
    own = (axis.label for axis in app.axes(tab))
    return (NOTHING, *(label for one in own for label in (one, *ABSENT.get(one, ()))))


def grid_of(given: Sequence[Any], tab: str, app: Any) -> Grid:
    """Return the grid that ``script_args`` ask for; what is missing at the end has its default.

    Raises ``InvalidRequest`` naming the argument.
    """
    defaults = arguments()
    if len(given) > len(defaults):
        raise InvalidRequest(f"script_args: {NAME} takes {len(defaults)} values, not {len(given)}.")
    values = defaults | dict(zip(defaults, given, strict=False))
    options = {name: values[name] for name in OPTIONS if name != "csv_mode"}
    known = labels(tab, app)
    for axis in "xyz":
        label = _label(values[f"{axis}_type"], known, f"{axis}_type")
        options |= {f"{axis}_type": label, f"{axis}_values": _values(values, axis, label, app.axes(tab))}
    return codec.decode(Grid, options, where="script_args")


def _label(given: Any, known: Sequence[str], where: str) -> str:
    label = given or NOTHING
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < len(known):
            raise InvalidRequest(f"script_args: {where} is the number of an axis, from 0 to {len(known) - 1}, "
                                 f"not {given}.", "Or give its label.")
        label = known[given]
    if not isinstance(label, str):
        raise InvalidRequest(f"script_args: {where} is the number of an axis or its label, not {given!r:.60}.")
    if any(label in absent for absent in ABSENT.values()):
        raise InvalidRequest(f"{TITLE}: {label} is not available in this version.", "Choose another axis.")
    return label


def _values(values: Mapping[str, Any], axis: str, label: str, axes: Sequence[Any]) -> str:
    """Return the values of an axis as text: where there are choices, those of the list, as in A1111."""
    text, chosen = values[f"{axis}_values"], values[f"{axis}_values_dropdown"]
    listed = has_axis(label) and bool(find_axis(label, axes).choices) and not values["csv_mode"]
    if listed and isinstance(chosen, list) and chosen:
        return join(chosen)
    return str(chosen) if listed and chosen else str(text or "")
