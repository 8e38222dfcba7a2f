import sys

import pytest

from modules.launcher import testing


def test_ones_own_arguments_come_last():
    assert testing.command(["-n", "0", "tests/core"]) == [
        sys.executable, "-m", "pytest", "-n", "2", "-n", "0", "tests/core"]


@pytest.mark.slow
def test_the_status_is_that_of_pytest(tmp_path):
    (tmp_path / "test_sample.py").write_text("def test_bad(): assert False\ndef test_good(): pass\n")
    assert testing.run(tmp_path, ["-n", "0", "-q", "-p", "no:cacheprovider", "-k", "good"]) == 0
    assert testing.run(tmp_path, ["-n", "0", "-q", "-p", "no:cacheprovider"]) == 1
