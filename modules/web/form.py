"""A form is data: fields declared once, from which the controls, the stored values and the request follow.

Values go by name everywhere. A plugin's ``Params`` and the settings become fields through the same mechanism.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings, setting_infos, with_values
from modules.plugin.params import param_infos, param_types

PLUGIN_SEPARATOR = "/"
OVERRIDES = "override_settings"
SEED_EXTRAS = ("subseed", "subseed_strength", "seed_resize_from_w", "seed_resize_from_h")
# Checkboxes that fill no field of their own, and the fields of a request that count only while they are on.
MARGINS = ("outpaint_left", "outpaint_right", "outpaint_up", "outpaint_down")
GATES = {"subseed_show": SEED_EXTRAS, "refiner_enable": ("refiner",), "outpaint_enable": MARGINS}


@dataclass(frozen=True)
class Field:
    """One control: its type is that of ``default`` (``str``, ``bool``, ``int``, ``float`` or a tuple of strings).

    ``kind`` is how it is shown: ``text``, ``seed`` (digits, so that 64 bits survive the browser), ``number``,
    ``slider``, ``checkbox``, ``choice``, ``choices`` or ``radio``. ``target`` is the field of ``Request`` that it
    fills, empty for none. Limits are inclusive. Without ``strict`` any choice is accepted here and checked by whoever
    knows them. ``labels`` are what the choices are called; ``empty`` is what one is called that leaves the value empty.
    """

    name: str
    label: str
    kind: str
    default: Any
    elem_id: str = ""
    target: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    strict: bool = False
    empty: str = ""
    help: str = ""
    lines: int = 1
    placeholder: str = ""


Form = tuple[Field, ...]


def value_of(field: Field, value: Any) -> Any:
    """Return ``value`` in the field's type; None and an empty number mean the default.

    Raises ``InvalidRequest`` with the field's label for a wrong type or a value outside the limits.
    """
    if value is None or (value == "" and not isinstance(field.default, str)):
        return field.default
    typed = _typed(field, value)
    for chosen in typed if isinstance(typed, tuple) else (typed,):
        if field.strict and field.choices and chosen not in field.choices:
            raise InvalidRequest(f"{field.label}: {chosen!r} is none of {', '.join(map(str, field.choices))}.")
    _check_limits(field, typed)
    return typed


def restored(form: Form, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every field: the stored one where it is still valid, the default otherwise."""
    return {field.name: _valid_or_default(field, stored.get(field.name)) for field in form}


def to_storage(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` as JSON types."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read(form: Form, values: Mapping[str, Any], settings: Settings) -> Request:
    """Build the request that the values of a form ask for, under ``settings`` and the overrides of the form.

    Raises ``InvalidRequest`` naming the field.
    """
    typed = {field.name: value_of(field, values.get(field.name)) for field in form}
    fields = {field.target: typed[field.name] for field in form if field.target}
    closed = {name for gate, names in GATES.items() if not typed.get(gate, True) for name in names}
    fields = {name: value for name, value in fields.items() if name not in closed}
    overrides = read_overrides(typed.get(OVERRIDES, ()))
    model = str(overrides.pop("model", ""))
    return Request(
        **fields, plugins=plugin_values(form, typed), model=model, settings=with_values(settings, overrides)
    )


def written(form: Form, fields: Mapping[str, Any], plugins: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return form values for the fields of a request and its plugins' values; only what the form has, and only
    what is valid in it. The inverse of ``read``.
    """
    found: dict[str, Any] = {}
    for field in form:
        plugin, _, name = field.name.partition(PLUGIN_SEPARATOR)
        source, key = (plugins.get(plugin, {}), name) if name else (fields, field.target)
        if key in source:
            found[field.name] = _valid_or_default(field, source[key])
    gates = {field.name: GATES[field.name] for field in form if field.name in GATES}
    for gate, names in gates.items():
        given = [fields[name] for name in names if name in fields]
        if given:
            found[gate] = any(value not in (0, -1, "") for value in given)
    return found


def read_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Return setting values for texts such as ``Clip skip: 2``, and ``model`` for ``Model hash`` or ``Model``.

    Raises ``InvalidRequest`` for a text that names no setting or a value of the wrong type.
    """
    names = {info.infotext: name for name, info in setting_infos().items() if info.infotext} | {"VAE": "sd_vae"}
    found: dict[str, Any] = {}
    for text in texts:
        key, _, value = (part.strip() for part in text.partition(":"))
        if key in ("Model hash", "Model"):
            found.setdefault("model", value)
        elif key in names:
            found[names[key]] = _from_text(Settings.__dataclass_fields__[names[key]].default, value, key)
        else:
            raise InvalidRequest(f"Override settings: {text!r} names no setting.", "Remove it from the list.")
    return found


def write_overrides(settings: Mapping[str, Any], model: str = "") -> tuple[str, ...]:
    """Return texts that ``read_overrides`` reads back; settings without an infotext key are left out."""
    infos = setting_infos()
    keys = {name: "VAE" if name == "sd_vae" else infos[name].infotext for name in settings if name in infos}
    return tuple(f"{keys[name]}: {value}" for name, value in settings.items() if keys.get(name)) + (
        (f"Model: {model}",) if model else ()
    )


def plugin_fields(plugin_id: str, params: type, prefix: str) -> Form:
    """Return a field for each parameter of a plugin, named ``<plugin>/<parameter>``."""
    defaults = params()
    types = param_types(params)
    return tuple(
        Field(
            name=f"{plugin_id}{PLUGIN_SEPARATOR}{name}", label=info.label, default=getattr(defaults, name),
            kind=_kind(types[name], info.choices, info.minimum, info.maximum),
            elem_id=f"{prefix}_{plugin_id}_{name}", minimum=info.minimum, maximum=info.maximum,
            step=info.step, choices=info.choices, strict=bool(info.choices), help=info.help, lines=info.lines,
        )
        for name, info in param_infos(params).items()
    )


def setting_fields(hidden: Iterable[str] = ()) -> Form:
    """Return a field for each setting, in order, with A1111's element ids; those in ``hidden`` are left out."""
    skipped = frozenset(hidden)
    return tuple(
        Field(
            name=name, label=info.label, default=Settings.__dataclass_fields__[name].default,
            kind=_kind(type(Settings.__dataclass_fields__[name].default), info.choices, info.minimum, info.maximum),
            elem_id=f"setting_{name}", minimum=info.minimum, maximum=info.maximum, step=info.step,
            choices=info.choices if isinstance(info.choices, tuple) else (),
            strict=isinstance(info.choices, tuple), help=info.help,
        )
        for name, info in setting_infos().items() if name not in skipped
    )


def _kind(kind: type, choices: tuple[Any, ...] | str, minimum: float | None, maximum: float | None) -> str:
    if kind is bool:
        return "checkbox"
    if kind is tuple:
        return "choices"
    if choices:
        return "choice"
    if kind in (int, float):
        bounded = minimum is not None and maximum is not None and maximum - minimum <= 10_000
        return "slider" if bounded else "number"
    return "text"


def _typed(field: Field, value: Any) -> Any:
    if isinstance(field.default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(field.default, int):
        return _integer(field, value)
    elif isinstance(field.default, float):
        return _number(field, value)
    elif isinstance(field.default, tuple):
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(value, str):
        return value
    raise InvalidRequest(f"{field.label}: {value!r} is not usable here.")


def _integer(field: Field, value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            pass
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value == int(value):
        return int(value)
    raise InvalidRequest(f"{field.label}: a whole number is expected, not {value!r}.")


def _number(field: Field, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidRequest(f"{field.label}: a number is expected, not {value!r}.")
    return number


def _check_limits(field: Field, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    below = field.minimum is not None and value < field.minimum
    if below or (field.maximum is not None and value > field.maximum):
        raise InvalidRequest(f"{field.label}: {value} is outside {field.minimum:g} to {field.maximum:g}."
                             if field.maximum is not None else f"{field.label}: {value} is below {field.minimum:g}.")


def _valid_or_default(field: Field, value: Any) -> Any:
    try:
        return value_of(field, value)
    except InvalidRequest:
        return field.default


def plugin_values(form: Form, typed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values of plugins' fields in a form, by plugin and parameter."""
    found: dict[str, dict[str, Any]] = {}
    for field in form:
        plugin, separator, name = field.name.partition(PLUGIN_SEPARATOR)
        if separator:
            found.setdefault(plugin, {})[name] = typed[field.name]
    return found


def _from_text(default: Any, text: str, label: str) -> Any:
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InvalidRequest(f"{label}: True or False is expected, not {text!r}.")
    return value_of(Field(label, label, "text", default), text)


def with_choices(field: Field, choices: Iterable[Any]) -> Field:
    """Return ``field`` with other choices."""
    return dataclasses.replace(field, choices=tuple(choices))
