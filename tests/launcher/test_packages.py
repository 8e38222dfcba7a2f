import json
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest

from modules.launcher.flags import Flags
from modules.launcher.packages import (
    ALONE,
    CONSTRAINTS,
    REQUIREMENTS,
    TEST_REQUIREMENTS,
    XFORMERS,
    Pins,
    Stamp,
    finds_own_wheels,
    missing,
    pins,
    read_stamp,
    steps,
    torch_override,
    wanted,
    without_torch,
    write_stamp,
)
from modules.launcher.torch_builds import Build, configured_build

FILES = Pins(Path("r.txt"), Path("a.txt"), Path("c.txt"), Path("t.txt"))
BUILD = Build("cu130", "https://example.org/cu130", ("torch==1+cu130",), "A card.")


@pytest.fixture
def project(tmp_path):
    for name in (CONSTRAINTS, REQUIREMENTS, ALONE, TEST_REQUIREMENTS):
        (tmp_path / name).write_bytes(f"torch==1\n{name}==2\n".encode())
    return tmp_path


def test_a_stamp_is_read_as_it_was_written(tmp_path):
    stamp = Stamp("3.11", "cpu", "", {REQUIREMENTS: "a"})
    write_stamp(tmp_path / "stamp.json", stamp)
    assert read_stamp(tmp_path / "stamp.json") == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["stamp.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '{"python": "3.11"}',
                                     json.dumps({"python": "", "torch": "", "override": "", "installed": 3})])
def test_a_damaged_stamp_counts_as_none(tmp_path, content):
    path = tmp_path / "stamp.json"
    if content is not None:
        path.write_text(content)
    assert read_stamp(path) == Stamp()


def test_nothing_is_missing_once_everything_is_stamped(project):
    needed = wanted(project, Flags(xformers=True), {}, tests=True)
    assert set(needed) == {REQUIREMENTS, ALONE, TEST_REQUIREMENTS, XFORMERS}
    assert missing(Stamp("3.11", "cpu", "", needed), needed, "3.11", "") == ()


@pytest.mark.parametrize("python, override", [("3.12", ""), ("3.11", "pip install torch")])
def test_another_python_or_torch_starts_afresh(project, python, override):
    needed = wanted(project, Flags(), {}, tests=False)
    assert missing(Stamp("3.11", "cpu", "", needed), needed, python, override) == (REQUIREMENTS, ALONE)


@pytest.mark.parametrize("changed, expected", [
    (REQUIREMENTS, (REQUIREMENTS,)), (ALONE, (ALONE,)), (TEST_REQUIREMENTS, (TEST_REQUIREMENTS,)),
    (CONSTRAINTS, (REQUIREMENTS, ALONE, TEST_REQUIREMENTS)),
])
def test_a_changed_pin_is_missing(project, changed, expected):
    stamp = Stamp("3.11", "cpu", "", wanted(project, Flags(), {}, tests=True))
    (project / changed).write_text("something==3\n")
    assert missing(stamp, wanted(project, Flags(), {}, tests=True), "3.11", "") == expected


def test_line_endings_are_no_change(project):
    before = wanted(project, Flags(), {}, tests=True)
    for path in project.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert wanted(project, Flags(), {}, tests=True) == before


def test_tests_and_xformers_are_needed_only_when_asked_for(project):
    assert set(wanted(project, Flags(), {}, tests=False)) == {REQUIREMENTS, ALONE}


@pytest.mark.parametrize("text, expected", [
    ("global.find-links='wheels'\n", True), (":env:.find-links='wheels'", True), ("install.no-index='true'", True),
    ("global.index-url='https://example.org'\nglobal.timeout='60'", False), ("", False),
    ("global.index-url='https://example.org/x.find-links=y'", False),
])
def test_where_pip_finds_wheels(text, expected):
    assert finds_own_wheels(text) is expected


def test_torch_comes_first_from_its_index_and_all_under_constraints():
    first, second = steps((REQUIREMENTS,), BUILD, FILES, Flags(), {})
    assert first.command[-3:] == ("--extra-index-url", "https://example.org/cu130", "torch==1+cu130")
    assert second.command[-2:] == ("-r", "r.txt") and "--extra-index-url" not in second.command
    assert all(step.command[:2] == ("pip", "install") and ("-c", "c.txt") in pairwise(step.command)
               for step in (first, second))
    assert "A card." in first.text


def test_where_pip_is_configured_no_index_is_added():
    first, _ = steps((REQUIREMENTS,), configured_build(), FILES, Flags(), {})
    assert first.command[-1].startswith("torch==") and not [word for word in first.command if "index" in word]


def test_an_index_url_replaces_the_usual_index():
    for step in steps((REQUIREMENTS, TEST_REQUIREMENTS), BUILD, FILES, Flags(), {"INDEX_URL": "https://example.org/s"}):
        assert ("--index-url", "https://example.org/s") in pairwise(step.command)


def test_some_packages_come_without_what_they_ask_for():
    (step,) = steps((ALONE,), BUILD, FILES, Flags(), {})
    assert step.command[-3:] == ("--no-deps", "-r", "a.txt") and ("-c", "c.txt") in pairwise(step.command)


def test_what_is_there_is_left_alone():
    only_tests = steps((TEST_REQUIREMENTS,), BUILD, FILES, Flags(), {})
    assert [step.command[-1] for step in only_tests] == ["t.txt"]
    assert steps((), BUILD, FILES, Flags(), {}) == []


def test_torch_and_xformers_can_be_installed_again():
    flags = Flags(reinstall_torch=True, reinstall_xformers=True)
    commands = [step.command for step in steps((REQUIREMENTS, XFORMERS), BUILD, FILES, flags, {})]
    assert commands[0] == ("pip", "uninstall", "--yes", "torch") and len(commands) == 4
    assert {"--force-reinstall", "--no-deps", "xformers==0.0.35"} <= set(commands[3])


def test_xformers_of_ones_own():
    (step,) = steps((XFORMERS,), BUILD, FILES, Flags(xformers=True), {"XFORMERS_PACKAGE": "xformers==9"})
    assert step.command[-1] == "xformers==9" and "--force-reinstall" not in step.command


def test_torch_command_replaces_the_pin_everywhere(project, tmp_path):
    environ = {"TORCH_COMMAND": "pip install --pre 'torch>=3'", "TORCH_INDEX_URL": "https://example.org"}
    folder = tmp_path / "venv"
    folder.mkdir()
    files = pins(project, folder, environ)
    first, second = steps((REQUIREMENTS,), BUILD, files, Flags(), environ)
    assert first.command == ("pip", "install", "--pre", "torch>=3")
    assert files.requirements.read_text() == f"{REQUIREMENTS}==2\n"
    assert files.constraints.read_text() == f"{CONSTRAINTS}==2\n"
    assert str(files.requirements) in second.command and str(files.constraints) in second.command
    assert torch_override(environ) == environ["TORCH_COMMAND"]


def test_without_a_torch_command_the_files_themselves_are_used(project):
    assert pins(project, project / "absent", {}) == Pins(
        project / REQUIREMENTS, project / ALONE, project / CONSTRAINTS, project / TEST_REQUIREMENTS)


def test_only_torch_itself_loses_its_pin():
    text = "# torch==1\ntorch==2.13.0\ntorchsde==0.2.6\npytorch==1\ntorch >= 1\n"
    assert without_torch(text) == "# torch==1\ntorchsde==0.2.6\npytorch==1\n"


def pinned(pytestconfig, name):
    lines = (pytestconfig.rootpath / name).read_text(encoding="utf-8").splitlines()
    rows = [line.partition(";")[0].partition("==") for line in lines if line and not line.startswith("#")]
    assert all(version for _, _, version in rows), f"{name} has a line without an exact release"
    return {package.lower().replace("_", "-"): version for package, _, version in rows}


def test_every_requirement_has_one_exact_release_that_the_constraints_share(pytestconfig):
    constraints = pinned(pytestconfig, CONSTRAINTS)
    for name in (REQUIREMENTS, ALONE, TEST_REQUIREMENTS):
        requirements = pinned(pytestconfig, name)
        assert requirements.items() <= constraints.items()
        assert "torchvision" not in constraints


def test_the_installed_packages_are_those_pinned(pytestconfig):
    for package, version in pinned(pytestconfig, REQUIREMENTS).items():
        assert metadata.version(package).split("+")[0] == version
