"""The X/Y/Z plot: what varies along three axes, and how the values of an axis are written."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modules.core.errors import InvalidRequest

TITLE = "X/Y/Z plot"
NOTHING = "Nothing"
# As many as pictures can be asked for at once.
MAX_VALUES = 10_000
MAX_MARGIN = 500

_INTEGER, _NUMBER = r"[+-]?\s*\d+", r"[+-]?\s*\d+(?:\.\d*)?"
_COUNTED = r"\[\s*(\d{1,9})\s*\]"
_WORDS = MappingProxyType({"true": True, "false": False})


@dataclass(frozen=True)
class Grid:
    """Three axes, each the label of an ``Axis`` (``Nothing`` or empty for none) and its values as text.

    ``margin_size`` is in pixels between cells. Seeds of -1 are fixed once for all cells, unless ``no_fixed_seeds``;
    ``vary_seeds_x`` and so on count them up along an axis. ``include_lone_images`` shows the cells beside the grid,
    ``include_sub_grids`` the grid of each value of Z.
    """

    x_type: str = ""
    x_values: str = ""
    y_type: str = ""
    y_values: str = ""
    z_type: str = ""
    z_values: str = ""
    draw_legend: bool = True
    include_lone_images: bool = False
    include_sub_grids: bool = False
    no_fixed_seeds: bool = False
    vary_seeds_x: bool = False
    vary_seeds_y: bool = False
    vary_seeds_z: bool = False
    margin_size: int = 0

    @property
    def axes(self) -> Mapping[str, tuple[str, str]]:
        """The label and the values of ``X``, ``Y`` and ``Z``."""
        return {"X": (self.x_type, self.x_values), "Y": (self.y_type, self.y_values),
                "Z": (self.z_type, self.z_values)}

    @property
    def wanted(self) -> bool:
        """Whether anything varies."""
        return any(has_axis(label) for label, _ in self.axes.values())


def has_axis(label: str) -> bool:
    """Return whether ``label`` names an axis."""
    return label not in ("", NOTHING)


def check_grid(grid: Grid) -> None:
    """Raise ``InvalidRequest`` where a field of ``grid`` is out of range."""
    if not 0 <= grid.margin_size <= MAX_MARGIN:
        raise InvalidRequest(f"margin_size must be from 0 to {MAX_MARGIN}, not {grid.margin_size}.")


def split(text: str) -> tuple[str, ...]:
    """Return the values in ``text``: comma-separated, with CSV's quotes around those that hold a comma.

    Raises ``InvalidRequest`` for more than 10,000, or one that is too long.
    """
    try:
        rows = csv.reader(io.StringIO(text), skipinitialspace=True)
        values = tuple(itertools.islice((value.strip() for row in rows for value in row), MAX_VALUES + 1))
    except csv.Error as error:
        raise InvalidRequest(f"The values cannot be read: {error}.") from None
    return _few(values)


def join(values: Iterable[Any]) -> str:
    """Return values as ``split`` reads them."""
    return ", ".join(_quoted(str(value)) for value in values)


def integers(text: str) -> tuple[int, ...]:
    """Return whole numbers and ranges of them: ``1-5`` is 1 to 5, ``1-9 (+4)`` 1, 5, 9, ``1-10 [5]`` five of equal
    distance, rounded towards 0. A1111's syntax.
    """
    return _few(value for item in split(text) if item
                for value in _range(item, _INTEGER, lambda found: int(_compact(found))))


def floats(text: str) -> tuple[float, ...]:
    """Return numbers and ranges of them: ``1-3 (+0.5)`` is 1, 1.5, 2, 2.5, 3, ``0-1 [5]`` five of equal distance."""
    return _few(value for item in split(text) if item
                for value in _range(item, _NUMBER, lambda found: float(_compact(found))))


def texts(text: str) -> tuple[str, ...]:
    """Return the values that are not empty."""
    return tuple(item for item in split(text) if item)


def booleans(text: str) -> tuple[bool, ...]:
    """Return truth values, written ``True`` and ``False``."""
    values = texts(text)
    unknown = next((item for item in values if item.lower() not in _WORDS), None)
    if unknown is not None:
        raise InvalidRequest(f"{unknown[:60]!r} is neither True nor False.")
    return tuple(_WORDS[item.lower()] for item in values)


def replacements(text: str) -> tuple[tuple[str, str], ...]:
    """Return what is searched for, the first value, with each value to put in its place, itself included."""
    values = split(text)
    if values and not values[0]:
        raise InvalidRequest("The first value, which is searched for, is empty.")
    return tuple((values[0], value) for value in values)


def orders(text: str) -> tuple[tuple[str, ...], ...]:
    """Return all orders of the values."""
    values = texts(text)
    if math.factorial(min(len(values), 20)) > MAX_VALUES:
        raise InvalidRequest(f"{len(values)} values have more than {MAX_VALUES:,} orders.", "Give fewer.")
    return tuple(itertools.permutations(values)) if values else ()


# How the values of an axis are read, by its kind.
READERS: Mapping[str, Callable[[str], Sequence[Any]]] = MappingProxyType({
    "int": integers, "seed": integers, "float": floats, "str": texts, "bool": booleans, "replacement": replacements,
    "order": orders,
})


def written(value: Any) -> str:
    """Return a value as it is shown."""
    if isinstance(value, float):
        return f"{round(value, 8):.10g}"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _quoted(value: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([value])
    return out.getvalue()


def _compact(text: str) -> str:
    return re.sub(r"\s", "", text)


def _range(item: str, number: str, read: Callable[[str], Any]) -> Sequence[Any]:
    """Return what one value stands for: a range with a step, a range with a count, or a number."""
    found = re.fullmatch(rf"({number})\s*-\s*({number})(?:\s*\(\s*({number})\s*\)|\s*{_COUNTED})?", item)
    try:
        if found is None:
            return (read(item),)
        first, last = read(found[1]), read(found[2])
        if found[4]:
            return _spaced(first, last, int(found[4]))
        return _stepped(item, first, last, read(found[3] or "1"))
    except (ValueError, OverflowError):
        kind = "whole number" if number == _INTEGER else "number"
        raise InvalidRequest(f"{item[:60]!r} is no {kind} and no range.",
                             "Write values like 1, 2, or 1-5, 1-9 (+2), 1-10 [5].") from None


def _stepped(item: str, first: Any, last: Any, step: Any) -> list[Any]:
    if not step or (last - first) * step < 0:
        raise InvalidRequest(f"{item[:60]!r} is empty: no step of {written(step)} leads there.",
                             "The step of a falling range is negative: 10-5 (-1).")
    # The last value is in the range although sums of steps are not exact.
    count = math.floor((last - first) / step + 1e-9) + 1
    _limit(count)
    return [_exact(first + number * step) for number in range(count)]


def _spaced(first: Any, last: Any, count: int) -> list[Any]:
    _limit(count)
    steps = max(1, count - 1)
    values = [first + (last - first) * number / steps for number in range(count)]
    return [int(value) for value in values] if isinstance(first, int) else [_exact(value) for value in values]


def _exact(value: Any) -> Any:
    return value if isinstance(value, int) else round(value, 10)


def _limit(count: float) -> None:
    if count > MAX_VALUES:
        raise InvalidRequest(f"An axis has at most {MAX_VALUES:,} values.", "Give fewer.")


def _few(values: Iterable[Any]) -> tuple[Any, ...]:
    found = tuple(itertools.islice(values, MAX_VALUES + 1))
    _limit(len(found))
    return found
