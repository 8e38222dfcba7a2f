"""Extensions begun, installed and brought up to date, from archives and from a repository on this disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from modules.core.errors import DarkroomError, Forbidden, InvalidRequest, NotFound
from modules.launcher import commands, extensions
from modules.launcher.flags import Flags

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''from modules.plugin import Plugin

open("it_ran", "w")


class Frame(Plugin):
    id = "frame"
    name = "Frame"
    version = "{version}"
    description = "A frame."
'''


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "program"
    (root / "extensions").mkdir(parents=True)
    (root / "constraints.txt").write_text("numpy==2.0.0\n")
    return root


def plugin(version: str = "1") -> bytes:
    return PLUGIN.format(version=version).encode()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def git(folder: Path, *words: str) -> str:
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True,
                          env={**os.environ, **identity}).stdout.strip()


def repository(folder: Path, version: str = "1") -> str:
    folder.mkdir(exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    (folder / "plugin.py").write_bytes(plugin(version))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", version)
    return git(folder, "rev-parse", "HEAD")


class Ran:
    """Takes the place of pip."""

    def __init__(self, error: Exception | None = None) -> None:
        self.steps: list[tuple[str, ...]] = []
        self._error = error

    def __call__(self, step, log):
        self.steps.append(step.command)
        if self._error:
            raise self._error


def yes(offer):
    return True


def install(root, address, ask=yes, run=None, **flags):
    return extensions.install(root, Flags(**flags), str(address), ask, run or Ran())


def left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "extensions").iterdir())


def test_an_archive_is_shown_before_anything_of_it_runs(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = zipped(tmp_path / "frame.zip", {"frame-main/plugin.py": plugin(), "frame-main/requirements.txt":
                                           b"shapely>=2  # geometry\n\nrich[jupyter]==13.0; python_version > '3'\n"})
    seen, ran = [], Ran()

    def look(offer):
        seen.append(offer)
        assert left(root) != ["frame"] and not ran.steps
        return True

    offer = install(root, path, look, ran)
    assert seen == [offer] and offer.packages == ("shapely>=2", "rich[jupyter]==13.0; python_version > '3'")
    assert offer.revision == hashlib.sha256(path.read_bytes()).hexdigest()
    [command] = ran.steps
    assert command[command.index("-c") + 1] == str(root / "constraints.txt")
    assert command[command.index("--") + 1:] == offer.packages and "-r" not in command
    assert left(root) == ["frame"] and (root / "extensions/frame/plugin.py").read_bytes() == plugin()
    assert not (tmp_path / "it_ran").exists()


def test_declined_or_failed_nothing_is_left(root, tmp_path):
    path = zipped(tmp_path / "frame.zip", {"plugin.py": plugin(), "requirements.txt": b"numpy==1.0\n"})
    assert install(root, path, lambda offer: False) is None and left(root) == []
    with pytest.raises(DarkroomError, match="conflict"):
        install(root, path, run=Ran(DarkroomError("conflict")))
    assert left(root) == []


def test_a_pinned_archive_that_changed_is_refused(root, tmp_path):
    path = zipped(tmp_path / "frame.zip", {"plugin.py": plugin()})
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    assert install(root, f"{path}@{pinned}").revision == pinned
    zipped(path, {"plugin.py": plugin("2")})
    with pytest.raises(DarkroomError, match="not " + pinned):
        extensions.install(root, Flags(data_dir=str(tmp_path / "other")), f"{path}@{pinned}", yes, Ran())


def test_a_commit_is_pinned_and_an_update_follows_the_branch(root, tmp_path):
    first = repository(tmp_path / "source")
    second = repository(tmp_path / "source", "2")
    assert install(root, f"{tmp_path / 'source'}@{first}").version == "1"
    assert not (root / "extensions/frame/.git").exists()
    assert extensions.update(root, Flags(), "frame", lambda offer: False, Ran()) is None
    assert (root / "extensions/frame/plugin.py").read_bytes() == plugin("1")
    offer = extensions.update(root, Flags(), "frame", yes, Ran())
    assert (offer.version, offer.revision) == ("2", second) and left(root) == ["frame"]
    assert extensions.update(root, Flags(), "frame", pytest.fail, Ran()) is None


@pytest.mark.parametrize(("files", "message"), [
    ({"readme.md": b""}, "no plugin.py"),
    ({"plugin.py": b"class ("}, "damaged"),
    ({"plugin.py": b"class A(Plugin):\n    id = '../../x'\n"}, "no name of a folder"),
    ({"plugin.py": plugin(), "../evil.py": b""}, "leads elsewhere"),
    ({"plugin.py": plugin(), "/evil.py": b""}, "leads elsewhere"),
    ({"plugin.py": plugin(), "requirements.txt": b"--index-url https://other"}, "no package of an index"),
    ({"plugin.py": plugin(), "a": b"", "a/b": b""}, "cannot be written here"),
    ({"plugin.py": plugin(), "x" * 300: b""}, "cannot be written here"),
])
def test_what_is_no_extension_is_refused(root, tmp_path, files, message):
    with pytest.raises(DarkroomError, match=message):
        install(root, zipped(tmp_path / "it.zip", files))
    assert left(root) == [] and not (root / "evil.py").exists()


def test_links_in_an_archive_are_refused(root, tmp_path):
    with tarfile.open(tmp_path / "it.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("plugin.py")
        entry.size = len(plugin())
        archive.addfile(entry, io.BytesIO(plugin()))
        link = tarfile.TarInfo("passwords")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DarkroomError, match="passwords is no plain file"):
        install(root, tmp_path / "it.tar.gz")


@pytest.mark.parametrize("flags", [{"listen": True}, {"share": True}, {"server_name": "example.org"}])
def test_while_others_reach_the_program_nothing_is_installed(root, tmp_path, flags):
    path = zipped(tmp_path / "frame.zip", {"plugin.py": plugin()})
    with pytest.raises(Forbidden, match="Extensions are code"):
        install(root, path, **flags)
    with pytest.raises(Forbidden):
        extensions.update(root, Flags(**flags), "frame", yes, Ran())
    assert install(root, path, enable_insecure_extension_access=True, **flags).id == "frame"


def test_a_record_that_holds_a_password_is_not_shown(root, tmp_path):
    install(root, zipped(tmp_path / "frame.zip", {"plugin.py": plugin()}))
    assert extensions.origin(root / "extensions/frame").address == str(tmp_path / "frame.zip")
    record = {"address": "https://me:secret@example.org/a", "revision": "a" * 40}
    (root / "extensions/frame" / extensions.RECORD).write_text(json.dumps(record))
    assert extensions.origin(root / "extensions/frame") is None


def test_a_second_of_the_name_and_a_missing_one_are_refused(root, tmp_path):
    path = zipped(tmp_path / "frame.zip", {"plugin.py": plugin()})
    install(root, path)
    with pytest.raises(InvalidRequest, match="already"):
        install(root, path)
    with pytest.raises(NotFound, match="not installed from an address"):
        extensions.update(root, Flags(), "other", yes, Ran())
    with pytest.raises(NotFound, match="cannot be read"):
        install(root, tmp_path / "missing.zip")
    with pytest.raises(DarkroomError, match="git fetch failed"):
        install(root, tmp_path / "nowhere")


def test_a_new_extension_works_and_its_test_passes(root):
    folder = extensions.begin(root, Flags(), "my_frame")
    assert folder == root / "extensions/my_frame"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-c",
         str(ROOT / "pyproject.toml"), str(root / "tests/extensions/my_frame/test_plugin.py")],
        cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "PYTEST_ADDOPTS": ""})
    assert result.returncode == 0 and "4 passed" in result.stdout, result.stdout
    with pytest.raises(InvalidRequest, match="exists already"):
        extensions.begin(root, Flags(), "my_frame")


@pytest.mark.parametrize("name", ["", "My", "a-b", "../x", "class", "1a"])
def test_names_that_are_none(root, name):
    with pytest.raises(InvalidRequest, match="cannot be an extension's name"):
        extensions.begin(root, Flags(), name)


def test_the_command_line(root, tmp_path, capsys, monkeypatch):
    call = commands.parse(["new-extension", "my_frame"], {})
    assert extensions.carry_out(root, call.flags, call.command, call.word, call.yes) == 0
    path = zipped(tmp_path / "frame.zip", {"plugin.py": plugin()})
    monkeypatch.setattr("builtins.input", lambda question: "no")
    for words, said in ((["install-extension", str(path)], "Nothing was changed"),
                        (["install-extension", str(path), "--yes"], "runs from the next start on")):
        call = commands.parse(words, {})
        extensions.carry_out(root, call.flags, call.command, call.word, call.yes)
        errors = capsys.readouterr().err
        assert said in errors and "packages  none" in errors
    with pytest.raises(InvalidRequest):
        commands.parse(["install-extension"], {})
