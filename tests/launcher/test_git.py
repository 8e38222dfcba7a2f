"""Commits read from repositories on this disk, and from a server that leads elsewhere."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import pytest

from modules.core.errors import InvalidRequest, NotFound
from modules.launcher.extension_files import Limits
from modules.launcher.git import Git

MIB = 1024 * 1024
LIMITS = Limits(size=MIB, count=10)


def git(folder: Path, *words: str, sent: bytes = b"") -> str:
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, input=sent,
                          env={**os.environ, **identity}).stdout.decode().strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    git(folder, "init", "--quiet")
    return folder


def commit(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "files")
    return git(folder, "rev-parse", "HEAD")


def fetched(tmp_path: Path, address: str | Path, wanted: str = "", limits: Limits = LIMITS, from_afar: bool = False):
    folder = tmp_path / f"repository-{time.monotonic_ns()}"
    folder.mkdir()
    return Git(folder, limits, from_afar).fetch(str(address), wanted)


def test_the_files_of_a_commit_are_read_as_they_are(source, tmp_path):
    files = {"plugin.py": b"one\r\n", "a/ b\n".strip(): b"", "ä/c": bytes(range(256)) * 10}
    first = commit(source, files)
    revision, found = fetched(tmp_path, source)
    assert revision == first and dict(found) == {PurePosixPath(name): content for name, content in files.items()}
    commit(source, {"plugin.py": b"two"})
    assert dict(fetched(tmp_path, source, first)[1])[PurePosixPath("plugin.py")] == b"one\r\n"
    assert dict(fetched(tmp_path, source)[1])[PurePosixPath("plugin.py")] == b"two"


def test_neither_hooks_nor_filters_of_the_owner_run(source, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    hook = tmp_path / "hooks/post-checkout"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    (tmp_path / "config").write_text(
        f'[core]\nhooksPath = {hook.parent}\n[filter "own"]\nsmudge = touch {ran}; cat\n')
    commit(source, {".gitattributes": b"*.py filter=own\n", "plugin.py": b"one"})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert dict(fetched(tmp_path, source)[1])[PurePosixPath("plugin.py")] == b"one"
    assert not ran.exists()


def test_what_unpacks_to_too_much_is_refused_before_it_is_read(source, tmp_path):
    commit(source, {"plugin.py": b"", "one": bytes(MIB // 2), "two": bytes(MIB // 2 + 1)})
    with pytest.raises(InvalidRequest, match="more than 10 files or 1,048,576 bytes"):
        fetched(tmp_path, source)
    commit(source, {"three": bytes(3 * MIB)})
    with pytest.raises(InvalidRequest, match="more than 10 files or 1,048,576 bytes"):
        fetched(tmp_path, source)


def test_a_download_ends_where_it_exceeds_what_is_allowed(source, tmp_path):
    commit(source, {str(number): random.Random(number).randbytes(MIB // 2) for number in range(6)})
    with pytest.raises(InvalidRequest, match="more than 10 files"):
        fetched(tmp_path, source)


def test_a_small_tree_of_very_many_files_is_refused(source, tmp_path):
    """Ten folders of ten folders and so on, all of them the same: seven objects, a million files."""
    kind, thing = "100644 blob", git(source, "hash-object", "-w", "--stdin")
    for _ in range(6):
        listing = "".join(f"{kind} {thing}\t{number}\n" for number in range(10))
        kind, thing = "040000 tree", git(source, "mktree", sent=listing.encode())
    revision = git(source, "commit-tree", thing, "-m", "many")
    git(source, "update-ref", "HEAD", revision)
    with pytest.raises(InvalidRequest, match="more than 10 files"):
        fetched(tmp_path, source)


def test_links_are_refused_and_submodules_left_out(source, tmp_path):
    first = commit(source, {"plugin.py": b"one"})
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{first},other")
    git(source, "commit", "--quiet", "-m", "submodule")
    assert dict(fetched(tmp_path, source)[1]) == {PurePosixPath("plugin.py"): b"one"}
    (source / "passwords").symlink_to("/etc/passwd")
    git(source, "add", "passwords")
    git(source, "commit", "--quiet", "-m", "link")
    with pytest.raises(InvalidRequest, match="'passwords' is a link"):
        fetched(tmp_path, source)


@pytest.mark.parametrize("address", ["ext::touch ran", "nowhere", "https://127.0.0.1:9/a.git"])
def test_what_cannot_be_fetched_says_so(tmp_path, address):
    with pytest.raises(NotFound, match="git fetch failed"):
        fetched(tmp_path, address)
    assert not list(tmp_path.rglob("ran"))


def test_from_afar_the_owners_configuration_and_disk_are_out_of_reach(source, tmp_path, monkeypatch):
    commit(source, {"plugin.py": b"one"})
    (tmp_path / "config").write_text(f'[url "{source}"]\ninsteadOf = https://private.invalid/a\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert len(fetched(tmp_path, "https://private.invalid/a")[1]) == 1
    for address in ("https://private.invalid/a", source):
        with pytest.raises(NotFound, match="git fetch failed"):
            fetched(tmp_path, address, from_afar=True)


def test_a_redirect_leads_to_no_other_protocol(tmp_path):
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/inside{self.path}")
            self.end_headers()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NotFound, match="git fetch failed"):
            fetched(tmp_path, f"http://127.0.0.1:{server.server_port}/a.git")
        server.shutdown()
    assert asked and not [path for path in asked if path.startswith("/inside")]
