"""The plugin in its place: found by the host, asked by the App, taking part in the engine's work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.app.messages import Run
from modules.core.errors import InvalidRequest
from modules.core.plan import ModelRef, Plan
from modules.core.request import Request
from modules.engine import planner
from modules.engine.engine import Engine
from modules.engine.entries import picture_parameters
from modules.engine.planner import Checkpoint, Checkpoints
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import hooks
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import Recorder
from tests.fixtures.fake_engine import FakeEngine, make_app
from tests.fixtures.tiny_models import write_tiny_sd1

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
COLOURS = ("red", "green", "blue", "yellow")
TEMPLATE = "a {red|green|blue|yellow} __animal__"
REQUEST = Request(prompt=TEMPLATE, negative_prompt="ugly", seed=5, subseed=1, width=64, height=64, steps=2,
                  sampler="Euler", batch_count=4)


@pytest.fixture
def wildcards(tmp_path: Path) -> Path:
    folder = tmp_path / "wildcards"
    folder.mkdir()
    (folder / "animal.txt").write_text("cat\ndog\nfox\n")
    return folder


@pytest.fixture
def host(tmp_path: Path, wildcards: Path) -> Host:
    found = discover([EXTENSIONS], tmp_path, {"wildcards": (wildcards,)}, frozenset())
    return Host(tuple(item for item in found if item.id == "dynamic_prompts"))


def ask(**values: Any) -> Request:
    options = {name: values.pop(name) for name in list(values) if name not in Request.__dataclass_fields__}
    return dataclasses.replace(REQUEST, plugins={"dynamic_prompts": options}, **values)


def planned(host: Host, request: Request) -> Plan:
    plan = planner.plan(request, Checkpoints(Checkpoint(ModelRef("a.safetensors"), "a")), {})
    return hooks.on_plan(host.active(request), plan)


def prompts(host: Host, request: Request) -> list[str]:
    return [picture.prompt for picture in planned(host, request).pictures]


def test_it_is_found_without_a_failure(host: Host) -> None:
    (found,) = host.found
    assert found.plugin is not None and (found.error, found.plugin.name) == ("", "Dynamic Prompts")


def test_every_picture_gets_a_text_of_its_own_from_its_seed(host: Host) -> None:
    texts = prompts(host, ask(batch_count=40))
    assert {text.split()[1] for text in texts} == set(COLOURS)
    assert {text.split()[2] for text in texts} == {"cat", "dog", "fox"}
    assert texts == prompts(host, ask(batch_count=40))
    assert prompts(host, ask(seed=REQUEST.seed + 7, batch_count=1)) == [texts[7]]
    assert prompts(host, ask(batch_count=20, batch_size=2)) == texts


def test_the_choice_of_the_first_seed_for_all(host: Host) -> None:
    texts = prompts(host, ask(batch_count=20, fixed_seed=True))
    assert texts == [prompts(host, ask())[0]] * 20


def test_template_and_result_are_in_the_infotext(host: Host) -> None:
    plan = planned(host, ask(negative_prompt="{bad|worse}"))
    for picture in plan.pictures:
        entries = picture_parameters(plan, picture)
        assert (entries["Template"], entries["Negative Template"]) == (TEMPLATE, "{bad|worse}")
        assert picture.negative_prompt in ("bad", "worse") and "{" not in picture.prompt


def test_a_prompt_that_is_no_template_stays_as_it_is(host: Host) -> None:
    request = ask(prompt="a (cat:1.2) {x} [a|b] <lora:y:1>")
    plan = planned(host, request)
    assert [picture.prompt for picture in plan.pictures] == [request.prompt] * 4
    assert not any(picture.parameters for picture in plan.pictures)


def test_turned_off_it_does_nothing(host: Host) -> None:
    assert prompts(host, ask(enabled=False)) == [TEMPLATE] * 4
    off = ask(enabled=False, combinatorial=True)
    assert hooks.expand(host.active(off), off) == (off,)


def test_a_wildcard_file_counts_as_it_is_now(host: Host, wildcards: Path) -> None:
    request = ask(prompt="__animal__", batch_count=1)
    assert prompts(host, request)[0] in ("cat", "dog", "fox")
    (wildcards / "animal.txt").write_text("owl\n")
    assert prompts(host, request) == ["owl"]


def test_no_wildcard_reaches_a_file_elsewhere(host: Host, wildcards: Path) -> None:
    (wildcards.parent / "secret.txt").write_text("password\n")
    assert prompts(host, ask(prompt="__../secret__", batch_count=1)) == ["__../secret__"]


def test_every_combination_becomes_a_request(host: Host) -> None:
    request = ask(combinatorial=True)
    parts = hooks.expand(host.active(request), request)
    assert [part.prompt for part in parts] == [f"a {one} {two}" for one in COLOURS for two in ("cat", "dog", "fox")]
    assert {(part.seed, part.steps) for part in parts} == {(REQUEST.seed, REQUEST.steps)}
    few = ask(combinatorial=True, combinations=5)
    assert [part.prompt for part in hooks.expand(host.active(few), few)] == [part.prompt for part in parts[:5]]


def test_escaped_braces_of_a_combination_stay_braces(host: Host) -> None:
    request = ask(prompt=r"{a|b} \{c|d\}", combinatorial=True)
    part = hooks.expand(host.active(request), request)[0]
    assert prompts(host, part) == ["a {c|d}"] * 4


def test_the_template_of_a_combination_is_in_the_infotext(host: Host) -> None:
    request = ask(prompt="{a|b} cat", combinatorial=True)
    part = hooks.expand(host.active(request), request)[0]
    plan = planned(host, part)
    assert picture_parameters(plan, plan.pictures[0])["Template"] == "{a|b} cat"


def test_a_prompt_without_choices_is_not_expanded(host: Host) -> None:
    request = ask(prompt="a cat", combinatorial=True)
    assert hooks.expand(host.active(request), request) == (request,)


@pytest.mark.parametrize("values", [{"combinations": 0}, {"combinations": 1001}, {"enabled": 1}, {"surprise": True}])
def test_bad_parameters_are_refused(host: Host, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="dynamic_prompts"):
        host.active(ask(**values))


def test_the_app_queues_a_job_for_each_combination(host: Host, tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "outputs")
    app = make_app(tmp_path / "installation", engine, host=host)
    app.start()
    try:
        job = app.wait(app.submit(ask(prompt="{a|b} cat", combinatorial=True, batch_count=1)).id, timeout=20)
    finally:
        app.close()
    ran = [command.request.prompt for command in engine.commands if isinstance(command, Run)]
    assert (job.state, len(job.images), ran) == ("finished", 2, ["a cat", "b cat"])


def test_the_engine_paints_what_was_chosen(host: Host, tmp_path: Path) -> None:
    write_tiny_sd1(tmp_path / "models/Stable-diffusion/tiny.safetensors")
    engine = Engine(Library(folders(tmp_path, {}), HashCache(tmp_path / "hashes.sqlite3")), Models(10**9), Placement())
    request = ask(batch_count=1, batch_size=3)
    chosen, plain = Recorder(), Recorder()
    engine.generate(request, host.active(request), chosen)
    assert [picture.prompt for picture in chosen.pictures] == prompts(host, request)
    assert all(picture.parameters["Template"] == TEMPLATE for picture in chosen.pictures)
    for picture in chosen.pictures:
        alone = dataclasses.replace(REQUEST, prompt=picture.prompt, seed=picture.seed, batch_count=1)
        engine.generate(alone, (), plain)
    for ours, theirs in zip(chosen.pictures, plain.pictures, strict=True):
        assert np.abs(np.asarray(ours.image, np.int16) - np.asarray(theirs.image, np.int16)).max() <= 1
