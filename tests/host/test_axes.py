"""Axes of the X/Y/Z plot that plugins add."""

import dataclasses
from dataclasses import dataclass

import pytest

from modules.core.axes import find_axis, read_values
from modules.core.errors import InvalidRequest, PluginFailed
from modules.core.request import Request
from modules.host.axes import named_axis
from modules.host.discover import Found
from modules.host.registry import Host
from modules.plugin import Axis, Plugin, param


@dataclass(frozen=True)
class Params:
    enabled: bool = param(False, "Enable frames")
    width: int = param(2, "Frame width", minimum=0, maximum=9)
    glow: float = param(0.5, "Glow")
    colour: str = param("black", "Frame colour", choices=("black", "white"))


class Frames(Plugin):
    id = "frames"
    name = "Picture Frames"
    Params = Params
    panels = ("txt2img",)

    def axes(self):
        def wreck(request, value):
            raise RuntimeError("wrecked")

        return (Axis("Mood", "str", lambda request, value: dataclasses.replace(request, prompt=value), cost=0.3),
                Axis("Wreck", "int", wreck))


class Bad(Plugin):
    id = "bad"

    def axes(self):
        raise RuntimeError("no")


@pytest.fixture
def axes(tmp_path):
    return Host(tuple(Found(one.id, tmp_path, one(None)) for one in (Bad, Frames))).axes()


def test_every_parameter_is_an_axis_and_so_is_what_a_plugin_declares(axes):
    assert [(axis.label, axis.kind, axis.choices) for axis in axes] == [
        ("[Picture Frames] Enable frames", "bool", ("False", "True")), ("[Picture Frames] Frame width", "int", ()),
        ("[Picture Frames] Glow", "float", ()), ("[Picture Frames] Frame colour", "str", ("black", "white")),
        ("[Picture Frames] Mood", "str", ()), ("[Picture Frames] Wreck", "int", ())]
    assert {axis.tabs for axis in axes[:4]} == {("txt2img",)} and axes[4].cost == 0.3


def test_a_parameter_takes_the_values_of_its_axis_beside_the_others(axes):
    request = Request(plugins={"frames": {"width": 7}, "other": {"x": 1}})
    for label, text, name, value in (("Enable frames", "True", "enabled", True), ("Frame colour", "white", "colour",
                                                                                   "white"), ("Glow", "1", "glow", 1)):
        axis = find_axis(f"[picture frames] {label}", axes)
        changed = axis.change(request, read_values(axis, text)[0])
        assert changed.plugins == {"frames": {"width": 7, name: value}, "other": {"x": 1}}
    assert find_axis("[Picture Frames] Mood", axes).change(request, "calm").prompt == "calm"


def test_a_bad_value_is_named_and_so_is_a_plugin_that_fails(axes):
    with pytest.raises(InvalidRequest, match=r"frames\.width: 10"):
        find_axis("[Picture Frames] Frame width", axes).change(Request(), 10)
    with pytest.raises(PluginFailed, match="'Picture Frames' failed in the axis Wreck"):
        find_axis("[Picture Frames] Wreck", axes).change(Request(), 1)


@pytest.mark.parametrize(("values", "words"), [
    ({"kind": "colour"}, "no kind 'colour'"), ({"choices": "colours"}, "no list 'colours'")])
def test_an_axis_whose_values_nobody_could_read_is_refused(values, words):
    axis = Axis(**{"label": "Frame", "kind": "str", "change": lambda request, value: request, **values})
    with pytest.raises(InvalidRequest, match=words):
        named_axis(Plugin(None), axis)
