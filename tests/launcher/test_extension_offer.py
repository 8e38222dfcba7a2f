"""What an extension says of itself, however it says it."""

from __future__ import annotations

import pytest

from modules.core.errors import InvalidRequest
from modules.launcher.extension_offer import MAX_PLUGIN_BYTES, Offer, examine

PLUGIN = 'class A(plugin.Plugin):\n    id = "frame"\n'


def examined(folder, plugin: str | bytes = PLUGIN, requirements: bytes | None = None) -> Offer:
    (folder / "plugin.py").write_bytes(plugin if isinstance(plugin, bytes) else plugin.encode())
    if requirements is not None:
        (folder / "requirements.txt").write_bytes(requirements)
    return examine(folder, "abc")


def test_texts_are_read_without_running_it(tmp_path):
    text = '\ufeffraise SystemExit\nclass A(Plugin):\n    id = "frame"\n    name = "Ä frame"\n    version = 2\n'
    assert examined(tmp_path, text + '    description = """One\n    two"""\n') == Offer(
        "frame", "Ä frame", "", "One two", "abc", ())
    assert examined(tmp_path).name == "frame"


@pytest.mark.parametrize(("plugin", "message"), [
    (b"\xff", "plugin.py is no text in utf-8"), ("x = 1", "Its id '' is no name"), ("\0", "damaged"),
    ("-" * 200_000 + "1", "damaged"), ("a" + ".a" * 100_000, "damaged"), ("(" * 1000, "damaged"),
    ("#" * (MAX_PLUGIN_BYTES + 1), "plugin.py has more than 262,144 bytes"),
    (f"class A({'a.' * 800}Plugin):\n    id = 'frame'\n    name = '\\ud800'", "name is no line"),
    (PLUGIN + "    name = '\\x1b[2J'", "name is no line"), (PLUGIN + "    version = '\\u202e'", "version is no line"),
    (PLUGIN + f"    name = '{'x' * 101}'", "name is no line of at most 100 characters"),
    (PLUGIN + f"    description = '{'x' * 2001}'", "description is no line of at most 2,000"),
])
def test_what_cannot_be_read_or_shown_is_refused(tmp_path, plugin, message):
    with pytest.raises(InvalidRequest, match=message):
        examined(tmp_path, plugin)


def test_a_folder_in_place_of_the_file_is_no_extension(tmp_path):
    (tmp_path / "plugin.py").mkdir()
    with pytest.raises(InvalidRequest, match="no plugin.py"):
        examine(tmp_path, "")


@pytest.mark.parametrize("line", [
    "colour", "a-b.c_1", "colour>=1", "colour >= 1.0, !=1.3.*, <2", "colour==1!2.0.post1+local-1", "colour~=1.2",
    "colour===2004d", "colour[a, b]==1; python_version > '3' and (os_name == \"nt\" or extra == 'x')",
    "colour ; os_name=='nt'",
])
def test_packages_of_an_index(tmp_path, line):
    assert examined(tmp_path, requirements=f"# of colours\n\n{line}  # why\n".encode()).packages == (line,)


@pytest.mark.parametrize("line", [
    "--index-url https://other", "-e .", "-r other.txt", "x @ https://other/x.whl", "./local", "git+https://other/x",
    "colour>=1 --global-option=x", "colour>=1 --hash=sha256:0", "colour \\", "colour==${SECRET}", "c:colour", "colour>",
    "colour>=1 >=2", "colour; os_name == 'a' # b \\\n-e .",
])
def test_anything_else_is_refused(tmp_path, line):
    with pytest.raises(InvalidRequest, match="no package of an index"):
        examined(tmp_path, requirements=line.encode())


@pytest.mark.parametrize(("requirements", "message"), [
    (b"\xff", "requirements.txt is no text in ascii"), ("colöur".encode(), "requirements.txt is no text in ascii"),
    (b"colour\n" * 10_000, "requirements.txt has more than 65,536 bytes"),
])
def test_requirements_are_short_and_plain(tmp_path, requirements, message):
    with pytest.raises(InvalidRequest, match=message):
        examined(tmp_path, requirements=requirements)
