"""Each setting's declaration, and the check of values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings, check_value, setting_infos, with_values


def test_every_setting_has_a_label_a_section_and_a_default_within_its_own_limits() -> None:
    defaults = dataclasses.asdict(Settings())
    for name, info in setting_infos().items():
        assert info.label and info.section
        assert check_value(name, defaults[name]) == defaults[name]


def test_infotext_names_are_unique() -> None:
    names = [info.infotext for info in setting_infos().values() if info.infotext]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "value"), [
    ("no_such_setting", 1), ("CLIP_stop_at_last_layers", 0), ("CLIP_stop_at_last_layers", "2"),
    ("CLIP_stop_at_last_layers", 1.5), ("CLIP_stop_at_last_layers", True), ("emphasis", "original"),
    ("s_noise", math.nan), ("s_noise", math.inf), ("samples_save", 1), ("hide_samplers", "Euler"),
    ("hide_samplers", [1]), ("samples_format", "exe"), ("sd_vae", 3), ("eta_noise_seed_delta", -1),
])
def test_a_bad_value_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=name):
        check_value(name, value)


def test_values_are_converted_only_where_nothing_is_lost() -> None:
    settings = with_values(Settings(), {"s_churn": 1, "CLIP_stop_at_last_layers": 2.0, "hide_samplers": ["Euler"],
                                        "sd_model_checkpoint": None})
    assert (settings.s_churn, settings.CLIP_stop_at_last_layers) == (1.0, 2)
    assert isinstance(settings.s_churn, float) and isinstance(settings.CLIP_stop_at_last_layers, int)
    assert (settings.hide_samplers, settings.sd_model_checkpoint) == (("Euler",), "")
