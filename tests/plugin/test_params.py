"""Parameters of plugins."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from modules.core.errors import InvalidRequest
from modules.plugin.params import NoParams, param, param_infos, param_types, read_params, told


@dataclass(frozen=True)
class Sample:
    strength: float = param(1.0, "Strength", minimum=0.0, maximum=2.0, infotext="Sample strength")
    mode: str = param("a", "Mode", choices=("a", "b"))
    plain_name: int = 3
    on: bool = param(True, "On")


def test_declarations_are_read_back_in_order() -> None:
    assert list(param_infos(Sample)) == ["strength", "mode", "plain_name", "on"]
    assert param_infos(Sample)["plain_name"].label == "Plain name"
    assert param_types(Sample) == {"strength": float, "mode": str, "plain_name": int, "on": bool}


def test_values_are_read_and_missing_ones_are_defaults() -> None:
    assert read_params(Sample, {"strength": 2}, "sample") == Sample(strength=2.0)
    assert read_params(NoParams, {}, "none") == NoParams()


@pytest.mark.parametrize("values", [{"strength": 2.1}, {"strength": float("nan")}, {"mode": "c"}, {"on": 1}, {"x": 1}])
def test_bad_values_are_refused_by_name(values: dict) -> None:
    with pytest.raises(InvalidRequest, match="sample"):
        read_params(Sample, values, "sample")


@dataclass(frozen=True)
class Switched:
    enabled: bool = param(False, "On")
    strength: float = param(1.0, "Strength")


def test_only_changed_values_are_told_and_all_of_them_once_switched_on() -> None:
    assert told(Sample(mode="b", on=False)) == {"mode": "b", "on": False}
    assert told(Switched(strength=2.0)) == {"strength": 2.0}
    assert told(Switched(enabled=True)) == {"enabled": True, "strength": 1.0}
