"""The axes of the X/Y/Z plot that plugins add: every parameter, and what they declare themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

from modules.core.axes import BOOLEANS, KINDS, LISTS, Axis
from modules.core.errors import InvalidRequest
from modules.core.grid import READERS
from modules.core.request import Request
from modules.plugin import Plugin
from modules.plugin.hooks import named
from modules.plugin.params import ParamInfo, param_infos, param_types, read_params


def plugin_axes(plugin: Plugin) -> tuple[Axis, ...]:
    """Return an axis for each parameter of ``plugin``, then its own, labelled ``[plugin] label``.

    A failure while a value is applied names the plugin.
    """
    types = param_types(plugin.Params)
    found = [_param_axis(plugin, name, info, types[name]) for name, info in param_infos(plugin.Params).items()]
    return tuple(dataclasses.replace(axis, label=f"[{plugin.name or plugin.id}] {axis.label}")
                 for axis in (*found, *(named_axis(plugin, axis) for axis in plugin.axes())))


def named_axis(plugin: Plugin, axis: Axis) -> Axis:
    """Return ``axis`` whose failures name ``plugin``; raises ``InvalidRequest`` for a kind or list that is none."""
    named_list = axis.choices if isinstance(axis.choices, str) else LISTS[0]
    for what, name, known in (("kind", axis.kind, tuple(READERS)), ("list", named_list, LISTS)):
        if name not in known:
            raise InvalidRequest(f"The axis {axis.label}: there is no {what} {name!r:.60}.", f"Use {', '.join(known)}.")

    def change(request: Request, value: Any) -> Request:
        with named(plugin, f"the axis {axis.label}"):
            return axis.change(request, value)
    return dataclasses.replace(axis, change=change)


def _param_axis(plugin: Plugin, name: str, info: ParamInfo, kind: type) -> Axis:
    def change(request: Request, value: Any) -> Request:
        values = {**request.plugins.get(plugin.id, {}), name: value}
        read_params(plugin.Params, values, plugin.id)
        return dataclasses.replace(request, plugins={**request.plugins, plugin.id: values})
    choices = BOOLEANS if kind is bool else tuple(map(str, info.choices))
    return Axis(info.label, KINDS[kind], change, tabs=plugin.panels, choices=choices)
