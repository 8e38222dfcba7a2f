"""Plugin parameters: one frozen dataclass from which panel, API schema, infotext keys and validation follow."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core import codec
from modules.core.errors import InvalidRequest


@dataclass(frozen=True)
class ParamInfo:
    """How one parameter is shown and checked; ``infotext`` is its key beside a picture, empty for none."""

    label: str
    help: str = ""
    infotext: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] = ()
    lines: int = 1


@dataclass(frozen=True)
class NoParams:
    """The parameters of a plugin that has none."""


def param(default: Any, label: str, **info: Any) -> Any:
    """Declare a field of a ``Params`` dataclass: its default, its label and the other fields of ``ParamInfo``."""
    return field(default=default, metadata={"info": ParamInfo(label, **info)})


def param_infos(kind: type) -> dict[str, ParamInfo]:
    """Return the ``ParamInfo`` of each field of ``kind``, in order; a plain field is labelled by its name."""
    return {
        item.name: item.metadata.get("info") or ParamInfo(item.name.replace("_", " ").capitalize())
        for item in dataclasses.fields(kind)
    }


def param_types(kind: type) -> dict[str, type]:
    """Return the type of each field of ``kind`` (``bool``, ``int``, ``float`` or ``str``)."""
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def read_params(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """Build ``kind`` from JSON values.

    Raises ``InvalidRequest`` for an unknown name, a wrong type, a value out of range or not among the choices.
    """
    params: Any = codec.decode(kind, values, where=where)
    for name, info in param_infos(kind).items():
        _check(f"{where}.{name}", getattr(params, name), info)
    return params


def stored_settings(text: str, plugin_id: str, kind: type) -> Any:
    """Return a plugin's settings from the JSON text of all; what is damaged or unknown there has its default."""
    try:
        values = json.loads(text)[plugin_id]
        return read_params(kind, {name: values[name] for name in param_infos(kind) if name in values}, plugin_id)
    except (ValueError, LookupError, TypeError, InvalidRequest):
        return kind()


def told(params: Any) -> dict[str, Any]:
    """Return the values of ``params`` that belong beside a picture: those that differ from the defaults.

    Where a parameter ``enabled`` is off by default and on now, all of them do: then they made the picture.
    """
    default, values = vars(type(params)()), vars(params)
    changed = {name: value for name, value in values.items() if value != default[name]}
    return dict(values) if changed.get("enabled") is True else changed


def _check(where: str, value: Any, info: ParamInfo) -> None:
    if info.choices and value not in info.choices:
        raise InvalidRequest(f"{where}: {value!r} is none of {', '.join(map(str, info.choices))}.")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    low = -math.inf if info.minimum is None else info.minimum
    high = math.inf if info.maximum is None else info.maximum
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(f"{where}: {value} is outside {info.minimum} to {info.maximum}.")
