"""The plugin in its place: found by the host, its options carried out by the engine on a tiny model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.core.errors import InvalidRequest
from modules.core.guidance import Guidance, Mimicry, Perturbation, Projection, Thresholding, ZeroStar
from modules.core.plan import ModelRef, Pass, Plan, Segment
from modules.engine.engine import Engine
from modules.families.base import ModelInput
from modules.host.discover import discover
from modules.host.registry import Host
from modules.plugin import Context, Plugin, hooks
from modules.plugin.hooks import Active
from tests.engine.conftest import REQUEST, Recorder, checkpoint, engine, library

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
__all__ = ["checkpoint", "engine", "library"]


class Rows(Plugin):
    """Writes down the roles of each call of the network."""

    id = "rows"

    def wrap_model(self, call: Any, plan: Plan, params: Any) -> Any:
        def seen(inputs: ModelInput) -> Any:
            self.roles.append(inputs.roles)
            return call(inputs)
        self.roles: list[tuple[str, ...]] = []
        return seen


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    found = discover([EXTENSIONS], tmp_path_factory.mktemp("data"), {}, frozenset())
    return Host(tuple(item for item in found if item.id == "guidance"))


@pytest.fixture(scope="module")
def plain(engine: Engine, host: Host) -> Any:
    return generated(engine, host)


def planned(host: Host, **values: Any) -> list[Guidance]:
    request = dataclasses.replace(REQUEST, plugins={"guidance": values})
    one = Pass(64, 64, 4, "Euler", "Automatic", Guidance(9.0, 2.0), (Segment(ModelRef("a.safetensors")),))
    plan = Plan(request, (), (one, dataclasses.replace(one, guidance=Guidance(5.0))))
    return [found.guidance for found in hooks.on_plan(host.active(request), plan).passes]


def generated(engine: Engine, host: Host, **values: Any) -> tuple[np.ndarray, Any, list[tuple[str, ...]]]:
    request = dataclasses.replace(REQUEST, plugins={"guidance": values})
    watch, rows = Recorder(), Rows(Context(Path(), Path(), {}))
    engine.generate(request, (*host.active(request), Active(rows, rows.Params())), watch)
    (picture,) = watch.pictures
    return np.asarray(picture.image, dtype=np.float32), picture.parameters, rows.roles


def test_by_default_nothing_changes(host: Host) -> None:
    assert not host.failures()
    assert planned(host) == [Guidance(9.0, 2.0), Guidance(5.0)]


@pytest.mark.parametrize(("values", "expected"), [
    ({"cfg_rescale": 0.7}, {"rescale": 0.7}),
    ({"dynamic_thresholding": True, "mimic_scale": 5.0, "threshold_percentile": 99.0},
     {"mimicry": Mimicry(5.0, 0.99)}),
    ({"latent_threshold": "Static", "latent_limit": 2.5}, {"thresholding": Thresholding(2.5)}),
    ({"latent_threshold": "Percentile"}, {"thresholding": Thresholding(3.0, 0.995)}),
    ({"apg": True, "apg_eta": 0.5}, {"projection": Projection(0.5, 15.0, -0.5)}),
    ({"cfg_zero": True, "zero_init": 1}, {"zero_star": ZeroStar(1)}),
    ({"pag_scale": 3.0, "pag_layers": " mid, Down.1 ,", "pag_end": 0.5},
     {"perturbed": Perturbation(3.0, ("mid", "down.1"), 0.0, 0.5)}),
    ({"seg_scale": 2.0, "seg_sigma": 10.0}, {"smoothed": Perturbation(2.0), "blur": 10.0}),
    ({"slg_scale": 1.5}, {"skipped": Perturbation(1.5, ("mid",), 0.01, 0.2)}),
])
def test_every_option_reaches_the_guidance_of_every_pass(
    host: Host, values: dict[str, Any], expected: dict[str, Any]
) -> None:
    untouched = {"skipped": Perturbation(start=0.01, end=0.2), "blur": math.inf}
    first, second = planned(host, **values)
    assert first == dataclasses.replace(Guidance(9.0, 2.0), **(untouched | expected))
    assert second == dataclasses.replace(Guidance(5.0), **(untouched | expected))


@pytest.mark.parametrize(("values", "key", "text"), [
    ({"cfg_rescale": 0.7}, "CFG rescale", "0.7"), ({"apg": True}, "APG", "True"),
    ({"dynamic_thresholding": True, "mimic_scale": 5.0}, "Mimic scale", "5.0"),
    ({"latent_threshold": "Static", "latent_limit": 0.5}, "Latent thresholding", "Static"),
    ({"cfg_zero": True}, "CFG-Zero", "True"),
])
def test_ways_without_further_rows_change_the_picture_and_its_infotext(
    engine: Engine, host: Host, plain: Any, values: dict[str, Any], key: str, text: str
) -> None:
    picture, without, rows = plain
    changed, parameters, same_rows = generated(engine, host, **values)
    assert np.abs(changed - picture).max() > 0 and rows == same_rows == [("cond", "uncond")] * 4
    assert parameters[key] == text and key not in without


@pytest.mark.parametrize(("name", "role", "key"), [
    ("pag", "perturbed", "PAG scale"), ("seg", "smoothed", "SEG scale"), ("slg", "skipped", "SLG scale"),
])
def test_ways_by_disturbance_have_one_more_row_while_they_take_part(
    engine: Engine, host: Host, plain: Any, name: str, role: str, key: str
) -> None:
    values = {f"{name}_scale": 5.0, f"{name}_layers": "mid, down.0", f"{name}_start": 0.25, f"{name}_end": 0.75}
    changed, parameters, rows = generated(engine, host, **values)
    assert rows == [("cond", "uncond"), *[("cond", "uncond", role)] * 2, ("cond", "uncond")]
    assert np.abs(changed - plain[0]).max() > 0 and parameters[key] == "5.0"


@pytest.mark.parametrize(("values", "message"), [
    ({"pag_scale": 3.0, "pag_layers": "middle"}, "'middle' is not the name of a layer"),
    ({"pag_scale": 3.0, "pag_layers": ","}, "No layer"),
    ({"pag_scale": 3.0, "pag_layers": "up.12"}, "no layer up.12"),
    ({"cfg_rescale": 1.5}, "guidance.cfg_rescale"),
])
def test_what_cannot_be_done_is_said(engine: Engine, host: Host, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        generated(engine, host, **values)
    assert len(generated(engine, host)[2]) == 4
