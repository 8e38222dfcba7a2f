import sys

import pytest

from modules.core.errors import DarkroomError, DiskFull
from modules.launcher import pip
from modules.launcher.packages import Step


@pytest.mark.parametrize("output, part, hint", [
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full", "room"),
    ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError('<x>: Failed to establish')'",
     "no connection", "network"),
    ("pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='x', port=443): Read timed out.",
     "no connection", "HTTPS_PROXY"),
    ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cu130 (from versions: none)\n"
     "ERROR: No matching distribution found for torch==2.13.0+cu130\n", "no torch==2.13.0+cu130 for Python", "64 bits"),
    ("error: externally-managed-environment", "may not be written", "VENV_DIR"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "damaged", "again"),
    ("first line\n" * 50 + "something new went wrong\n", "something new went wrong", "install.log"),
])
def test_a_failure_is_put_in_plain_words(tmp_path, output, part, hint):
    error = pip.explain(output, tmp_path / "install.log")
    assert part in error.message and hint in error.hint
    assert isinstance(error, DiskFull) is ("disk" in part)
    assert len(error.message.splitlines()) < 15


def test_a_step_that_succeeds_leaves_its_output_in_the_log(tmp_path, capsys):
    pip.run(Step("Looking", ("pip", "--version")), tmp_path / "log")
    assert "pip" in (tmp_path / "log").read_text()
    assert capsys.readouterr().err == "Looking\n"


def test_a_step_that_fails_says_why(tmp_path):
    missing = str(tmp_path / "absent-1.0-py3-none-any.whl")
    with pytest.raises(DarkroomError, match="pip failed"):
        pip.run(Step("Installing", ("pip", "install", "--no-index", missing)), tmp_path / "log")
    assert "absent" in (tmp_path / "log").read_text()


def test_the_configuration_is_that_of_this_python(monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "somewhere")
    assert "find-links='somewhere'" in pip.configuration()


def test_pip_runs_under_this_interpreter(tmp_path):
    pip.run(Step("Looking", ("pip", "--version")), tmp_path / "log")
    assert (tmp_path / "log").read_text().startswith(f"$ {sys.executable} ")
