"""Frozen dataclasses to plain JSON values and back, checked field by field.

Rows of the job queue, messages to the engine's process and bodies of the native API all pass through here,
so nothing that comes from outside ever reaches a general deserialiser.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from modules.core.errors import InvalidRequest

T = TypeVar("T")
# Most of what is encoded, and a grid is encoded ten thousand times.
_PLAIN = (str, int, float, bool, type(None))


def encode(value: Any) -> Any:
    """Return ``value`` as JSON types: dataclasses become objects, tuples become arrays."""
    if type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: Any, *, where: str = "", ignore_unknown: bool = False) -> T:
    """Build ``kind`` from JSON values.

    Missing fields take their defaults. Raises ``InvalidRequest`` naming the field when a value has the wrong
    type, a required field is missing or, unless ``ignore_unknown``, a field is unknown.
    """
    return cast(T, _decode(kind, value, where, ignore_unknown))


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, value: Any, where: str, ignore: bool) -> Any:
    if kind is Any:
        return value
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(kind, value, where, ignore)
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise InvalidRequest(f"{where}: {value!r} is none of {', '.join(map(repr, typing.get_args(kind)))}.")
        return value
    if origin in (tuple, list):
        return _decode_sequence(kind, value, where, ignore)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(kind, value, where, ignore)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(cast(type, kind), value, where, ignore)
    return _decode_scalar(kind, value, where)


def _decode_union(kind: Any, value: Any, where: str, ignore: bool) -> Any:
    options = typing.get_args(kind)
    if value is None and type(None) in options:
        return None
    reason: InvalidRequest | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            return _decode(option, value, where, ignore)
        except InvalidRequest as error:
            reason = error
    raise reason or InvalidRequest(f"{where}: a value is required.")


def _decode_sequence(kind: Any, value: Any, where: str, ignore: bool) -> Any:
    if not isinstance(value, (list, tuple)):
        raise InvalidRequest(f"{where}: a list is expected, not {type(value).__name__}.")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and len(arguments) > 1 and arguments[1] is not Ellipsis:
        if len(arguments) != len(value):
            raise InvalidRequest(f"{where}: {len(arguments)} values are expected, not {len(value)}.")
        return tuple(
            _decode(item_kind, item, f"{where}[{i}]", ignore)
            for i, (item_kind, item) in enumerate(zip(arguments, value, strict=True))
        )
    items = (_decode(arguments[0], item, f"{where}[{i}]", ignore) for i, item in enumerate(value))
    return tuple(items) if origin is tuple else list(items)


def _decode_mapping(kind: Any, value: Any, where: str, ignore: bool) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{where}: an object is expected, not {type(value).__name__}.")
    _, item_kind = typing.get_args(kind)
    return {str(key): _decode(item_kind, item, f"{where}.{key}", ignore) for key, item in value.items()}


def _decode_dataclass(kind: type, value: Any, where: str, ignore: bool) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{where or kind.__name__}: an object is expected, not {type(value).__name__}.")
    hints = _hints(kind)
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    unknown = sorted(set(map(str, value)) - names)
    if unknown and not ignore:
        raise InvalidRequest(f"{where or kind.__name__}: unknown field {unknown[0]!r}.")
    prefix = f"{where}." if where else ""
    known = {name: _decode(hints[name], value[name], prefix + name, ignore) for name in names if name in value}
    try:
        return kind(**known)
    except TypeError as error:
        raise InvalidRequest(f"{where or kind.__name__}: {error}.") from None


def _decode_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InvalidRequest(f"{where}: the number is too large.") from None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and not (kind in (int, float) and isinstance(value, bool)):
        return value
    raise InvalidRequest(f"{where}: {kind.__name__} is expected, not {type(value).__name__}.")
