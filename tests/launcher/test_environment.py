import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.errors import DarkroomError, DiskFull
from modules.launcher import environment, packages
from modules.launcher.flags import Flags
from modules.launcher.torch_builds import NVIDIA, Build, Gpu, SystemInfo

# The steps of a first installation: torch, everything else, what comes without what it asks for.
FRESH = 3


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("VENV_DIR", "SKIP_VENV", "TORCH_COMMAND", "TORCH_INDEX_URL", "INDEX_URL", "XFORMERS_PACKAGE"):
        monkeypatch.delenv(name, raising=False)
    for name in (packages.CONSTRAINTS, packages.REQUIREMENTS, packages.ALONE, packages.TEST_REQUIREMENTS):
        (tmp_path / name).write_text(f"{name}==1\n")
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """Record the steps that would run pip."""
    steps = []
    monkeypatch.setattr(environment.pip, "run", lambda step, log: steps.append(step))
    monkeypatch.setattr(environment.pip, "configuration", lambda: "global.find-links='x'")
    return steps


@pytest.fixture
def restarted(monkeypatch):
    """Record the command line of a restart instead of running it."""
    commands = []
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append(command))
    return commands


@pytest.mark.parametrize("environ, expected", [
    ({}, "venv"), ({"VENV_DIR": "other"}, "other"), ({"VENV_DIR": ""}, "venv"), ({"VENV_DIR": '"my env"'}, "my env"),
    ({"VENV_DIR": "-"}, None), ({"SKIP_VENV": "1"}, None),
])
def test_where_the_environment_is(root, environ, expected):
    assert environment.environment_folder(root, environ) == (root / expected if expected else None)


def test_an_absolute_folder_is_kept(root, tmp_path):
    assert environment.environment_folder(root, {"VENV_DIR": str(tmp_path / "x")}) == tmp_path / "x"


def test_the_second_start_runs_nothing(root, ran):
    environment.install(root, Flags(), False, root)
    first = len(ran)
    environment.install(root, Flags(), False, root)
    assert (first, len(ran)) == (FRESH, FRESH)


def test_the_second_start_asks_nothing_of_the_machine(root, ran, monkeypatch):
    environment.install(root, Flags(), False, root)

    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    environment.install(root, Flags(), False, root)


def test_tests_add_to_what_is_there(root, ran):
    environment.install(root, Flags(), False, root)
    environment.install(root, Flags(), True, root)
    assert [step.command[-1] for step in ran[FRESH:]] == [str(root / packages.TEST_REQUIREMENTS)]
    environment.install(root, Flags(), False, root)
    environment.install(root, Flags(), True, root)
    assert len(ran) == FRESH + 1


def test_an_interrupted_installation_is_done_again(root, ran, monkeypatch):
    environment.install(root, Flags(), False, root)
    (root / packages.REQUIREMENTS).write_text("changed==2\n")
    recorded = environment.pip.run

    def interrupted(step, log):
        raise KeyboardInterrupt

    monkeypatch.setattr(environment.pip, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        environment.install(root, Flags(), False, root)
    assert not (root / environment.STAMP).exists()
    (root / packages.REQUIREMENTS).write_text(f"{packages.REQUIREMENTS}==1\n")  # back to what was there before
    monkeypatch.setattr(environment.pip, "run", recorded)
    environment.install(root, Flags(), False, root)
    assert len(ran) == 2 * FRESH and (root / environment.STAMP).exists()


@pytest.fixture
def machine(monkeypatch):
    """Make this a machine with the cards that are added to the list."""
    cards = []
    monkeypatch.setattr(environment, "read_system", lambda: SystemInfo("Linux", "x86_64", tuple(cards)))
    return cards


def test_xformers_is_installed_once_where_it_is_of_use(root, ran, machine, capsys):
    machine.append(Gpu(NVIDIA, "a card", capability=(8, 9)))
    environment.install(root, Flags(xformers=True), False, root)
    assert ran[-1].command[-1] == packages.XFORMERS_PACKAGE and len(ran) == FRESH + 1
    environment.install(root, Flags(xformers=True), False, root)
    assert len(ran) == FRESH + 1 and "xformers is not installed" not in capsys.readouterr().err


def test_without_a_card_xformers_is_a_line_and_no_more(root, ran, machine, capsys):
    for _ in range(2):
        environment.install(root, Flags(xformers=True), False, root)
        lines = [line for line in capsys.readouterr().err.splitlines() if "xformers" in line]
        assert len(lines) == 1 and "needs an NVIDIA card" in lines[0]
    assert len(ran) == FRESH


def test_a_package_of_ones_own_is_not_judged(root, ran, machine, monkeypatch):
    monkeypatch.setenv("XFORMERS_PACKAGE", "xformers==9")
    environment.install(root, Flags(xformers=True), False, root)
    assert ran[-1].command[-1] == "xformers==9"


def test_what_is_optional_may_fail(root, ran, machine, monkeypatch, capsys):
    machine.append(Gpu(NVIDIA, "a card", capability=(8, 9)))
    environment.install(root, Flags(), False, root)
    recorded = environment.pip.run

    def fail(step, log):
        raise DarkroomError("There is no connection.", "Check it.")

    monkeypatch.setattr(environment.pip, "run", fail)
    environment.install(root, Flags(xformers=True), False, root)
    assert "Installing xformers failed" in capsys.readouterr().err
    monkeypatch.setattr(environment.pip, "run", recorded)
    environment.install(root, Flags(xformers=True), False, root)
    assert [step.optional for step in ran] == [False] * FRESH + [True]
    (root / packages.REQUIREMENTS).write_text("changed==2\n")
    monkeypatch.setattr(environment.pip, "run", fail)
    with pytest.raises(DarkroomError, match="no connection"):
        environment.install(root, Flags(), False, root)


def test_torch_is_installed_again_on_request(root, ran):
    environment.install(root, Flags(), False, root)
    environment.install(root, Flags(reinstall_torch=True), False, root)
    assert ran[FRESH].command[:2] == ("pip", "uninstall") and len(ran) == FRESH + 3


def test_an_index_for_torch_is_taken_over(root, ran, monkeypatch):
    monkeypatch.setenv("TORCH_INDEX_URL", "https://example.org/whl")
    environment.install(root, Flags(), False, root)
    assert "https://example.org/whl" in ran[0].command
    monkeypatch.delenv("TORCH_INDEX_URL")
    environment.install(root, Flags(), False, root)
    assert len(ran) == 2 * FRESH and "https://example.org/whl" not in ran[FRESH].command


def test_a_full_disk_is_seen_before_anything_is_written(root, ran, monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    usage = shutil.disk_usage(root)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match=r"3 GB.*1\.0 GB"):
        environment.install(root, Flags(), False, root)
    assert ran == []


def test_skipping_the_environment_does_nothing(root, ran, restarted):
    environment.prepare(root, Flags(skip_prepare_environment=True), [])
    assert (ran, restarted, (root / "venv").exists()) == ([], [], False)


def test_skipping_the_installation_without_an_environment_goes_on_as_it_is(root, ran, restarted):
    environment.prepare(root, Flags(skip_install=True), [])
    assert (ran, restarted, (root / "venv").exists()) == ([], [], False)


def test_inside_the_environment_it_installs_without_a_restart(root, ran, restarted, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(root / "venv"))
    (root / "venv").mkdir()
    environment.prepare(root, Flags(), [])
    assert restarted == [] and len(ran) == FRESH and (root / "venv" / environment.STAMP).exists()
    environment.prepare(root, Flags(skip_install=True, reinstall_torch=True), [])
    assert len(ran) == FRESH


def test_the_python_it_is_started_with_can_be_used(root, ran, restarted, monkeypatch):
    monkeypatch.setenv("VENV_DIR", "-")
    monkeypatch.setattr(sys, "prefix", str(root))
    environment.prepare(root, Flags(), [])
    assert restarted == [] and len(ran) == FRESH and (root / environment.STAMP).exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no execv that waits")
def test_an_environment_is_made_and_entered(root, restarted, monkeypatch, capfd):
    class Entered(Exception):
        pass

    def enter(path, command):
        restarted.append(command)
        raise Entered

    monkeypatch.setattr(os, "execv", enter)
    for _ in range(2):
        with pytest.raises(Entered):
            environment.prepare(root, Flags(), ["--port", "1"])
    python = root / "venv" / "bin" / "python"
    assert restarted == [[str(python), str(root / "webui.py"), "--port", "1"]] * 2
    assert capfd.readouterr().err.count("Making the environment") == 1
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(prefix.stdout.strip()).samefile(root / "venv")


@pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links")
def test_a_folder_that_is_no_environment_is_never_cleared(root, monkeypatch):
    folder = root / "photos"
    folder.mkdir()
    (folder / "holiday.png").write_text("dear")
    commands = record_creation(monkeypatch)
    with pytest.raises(DarkroomError):
        environment._create(folder)
    (folder / "pyvenv.cfg").write_text("")
    with pytest.raises(DarkroomError):
        environment._create(folder)
    assert ["--clear" in command for command in commands] == [False, True]


def record_creation(monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, stdout="it failed")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.parametrize("absent", ["venv", "ensurepip"])
def test_without_the_module_venv_it_says_what_to_install(root, monkeypatch, absent):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None if name == absent else object())
    with pytest.raises(DarkroomError, match=rf"apt install python3\.{sys.version_info[1]}-venv"):
        environment._create(root / "venv")
    assert not (root / "venv").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links")
def test_an_interpreter_that_is_gone_counts_as_none(root):
    (root / "venv" / "bin").mkdir(parents=True)
    (root / "venv" / "bin" / "python").symlink_to(root / "gone")
    assert environment._python(root / "venv") is None
    (root / "venv" / "bin" / "python3").symlink_to(sys.executable)
    assert environment._python(root / "venv") == root / "venv" / "bin" / "python3"


def test_a_card_that_torch_does_not_reach_is_mentioned(monkeypatch, capsys):
    build = Build("cu130", None, ())
    for status, warnings in ((3, 1), (0, 0)):
        finished = subprocess.CompletedProcess([], status)
        monkeypatch.setattr(subprocess, "run", lambda command, finished=finished, **_: finished)
        environment._check_accelerator(build)
        assert capsys.readouterr().err.count("Warning") == warnings
    environment._check_accelerator(dataclasses.replace(build, name="cpu"))
    assert capsys.readouterr().err == ""


def test_pip_is_put_back_after_an_interruption(monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    commands = record_creation(monkeypatch)
    with pytest.raises(DarkroomError, match="no pip"):
        environment._ensure_pip()
    assert commands[0][1:3] == ["-m", "ensurepip"]
