import pytest

from modules.core.errors import InvalidRequest
from modules.launcher.terminal import ProgressLine, fail, summary, warn


@pytest.mark.parametrize("line, expected", [
    ("  Downloading torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl (180.3 MB)",
     ("downloading torch 2.13.0+cpu (180 MB)", True)),
    ("Downloading https://example.org/whl/lark-1.3.1-py3-none-any.whl.metadata (1.8 kB)",
     ("downloading lark 1.3.1", False)),
    ("  Downloading nvidia_x-9.1-py3-none-any.whl (1.2 GB)", ("downloading nvidia_x 9.1 (1200 MB)", True)),
    ("Collecting gradio==6.31.0 (from -r requirements.txt (line 7))", ("resolving gradio", False)),
    ("Processing /a/b/lark-1.3.1-py3-none-any.whl (from x)", ("resolving lark", False)),
    ("Requirement already satisfied: numpy>=1 in ./venv", ("resolving numpy", False)),
    ("Installing collected packages: a, b, c", ("unpacking 3 packages", True)),
    ("  Using cached x.whl (1 kB)", ("", False)),
    ("", ("", False)),
])
def test_what_is_shown_of_pip(line, expected):
    assert summary(line) == expected


def test_a_log_shows_only_what_takes_long(capsys):
    with ProgressLine() as progress:
        progress.show("Collecting a")
        progress.show("  Downloading a-1.0-py3-none-any.whl (99.6 MB)")
        progress.show("Installing collected packages: a, b")
    assert capsys.readouterr().err == "  downloading a 1.0 (100 MB)\n  unpacking 2 packages\n"


def test_a_terminal_rewrites_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    with ProgressLine() as progress:
        progress.show("Collecting a-package-with-a-very-long-name")
        progress.show("Collecting a-package-with-a-very-long-name")
    written = capsys.readouterr().err
    assert "\n" not in written and written.count("resolving") == 1 and written.endswith("\r\x1b[K")
    assert all(len(part.replace("\x1b[K", "")) < 20 for part in written.split("\r"))


def test_errors_and_warnings_are_marked(capsys):
    warn(["a", "b"])
    fail(InvalidRequest("It broke.", "Mend it."))
    assert capsys.readouterr().err == "Warning: a\nWarning: b\nError: It broke.\n       Mend it.\n"
