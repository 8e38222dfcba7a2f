"""A commit's files, read by git without checking anything out, so that no hook, filter or link does anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import InvalidRequest, NotFound
from modules.launcher.extension_files import Files, Limits, safe_path

SECONDS = 300.0
# How often the folder of a running git is measured.
STEP = 0.05
# The most that git may say of one file: its name above all.
LINE = 1024
LINK, SUBMODULE = "120", "160"
# What git says where an object is beyond GIT_ALLOC_LIMIT.
_TOO_LARGE = "attempting to allocate"

# A redirect leads to https alone; the other protocols are for addresses that somebody typed.
_OPTIONS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    **{f"protocol.{scheme}.allow": "user" for scheme in ("http", "ssh", "git", "file")},
    "http.followRedirects": "initial",
    "maintenance.auto": "false",
}
# From afar https alone, and nothing that an address is redirected to.
_FROM_AFAR = {
    **{f"protocol.{scheme}.allow": "never" for scheme in ("http", "ssh", "git", "file")},
    "http.followRedirects": "false",
}


@dataclass(frozen=True)
class Git:
    """Runs git in ``folder``, an empty one; ``from_afar`` without the owner's configuration, and by https alone."""

    folder: Path
    limits: Limits
    from_afar: bool = False

    def fetch(self, address: str, commit: str) -> tuple[str, Files]:
        """Return the ``commit`` (empty: ``HEAD``) that ``address`` has, and its files without those of submodules.

        Raises ``NotFound`` where it cannot be had and ``InvalidRequest`` where it is larger than ``limits`` or has a
        link. Nothing of the files is read before their sizes are known.
        """
        if shutil.which("git") is None:
            raise NotFound("There is no git on this machine.", "Install git, or give the address of an archive.")
        self._run("init", "--quiet", "--bare", "--template=")
        self._run("fetch", "--quiet", "--depth", "1", "--no-tags", "--", address, commit or "HEAD")
        revision = self._run("rev-parse", "FETCH_HEAD^{commit}").decode().strip()
        listed = self._run("ls-tree", "-r", "-l", "-z", revision, most=self.limits.count * LINE)
        entries = [_entry(line) for line in listed.split(b"\0") if line]
        files = [entry for entry in entries if entry.kind != SUBMODULE]
        self.limits.check(len(files), sum(entry.size for entry in files))
        for entry in files:
            if entry.kind == LINK:
                raise InvalidRequest(f"{entry.name[:200]!r} is a link.", "An extension has plain files alone.")
        names = [safe_path(entry.name) for entry in files]
        wanted = "".join(f"{entry.blob}\n" for entry in files)
        content = self._run("cat-file", "--batch=%(objectsize)", sent=wanted.encode())
        return revision, list(zip(names, _contents(content), strict=True))

    def _run(self, *words: str, sent: bytes = b"", most: int = 0) -> bytes:
        """Return what git prints; ``most`` bytes (0: what ``limits`` allow) are all that the folder may grow by."""
        asked, said, complaints = (self.folder / name for name in ("asked", "said", "complaints"))
        asked.write_bytes(sent)
        room = _size(self.folder) + (most or self.limits.size + self.limits.count * LINE)
        deadline = time.monotonic() + SECONDS
        with asked.open("rb") as stdin, said.open("wb") as stdout, complaints.open("wb") as stderr, subprocess.Popen(
            ["git", "--git-dir=.", *_configured(self.from_afar), *words], cwd=self.folder, stdin=stdin, stdout=stdout,
            stderr=stderr, env=_environment(self.limits, self.from_afar), start_new_session=True,
        ) as process:
            try:
                while not _has_ended(process):
                    self._check_room(room)
                    if time.monotonic() > deadline:
                        raise NotFound("git takes too long.", "Check the address and the network.")
            finally:
                _end(process)
        self._check_room(room)
        if process.returncode:
            told = complaints.read_text("utf-8", "replace").strip()
            if _TOO_LARGE in told:
                raise self.limits.exceeded()
            last = (told.splitlines() or ["no reason given"])[-1]
            raise NotFound(f"git {words[0]} failed: {last}", "Check the address, the commit and the network.")
        return said.read_bytes()

    def _check_room(self, room: int) -> None:
        if _size(self.folder) > room:
            raise self.limits.exceeded()


@dataclass(frozen=True)
class _Entry:
    kind: str
    blob: str
    size: int
    name: str


def _entry(line: bytes) -> _Entry:
    told, _, name = line.partition(b"\t")
    mode, _, blob, size = told.decode().split()
    return _Entry(mode[:3], blob, 0 if size == "-" else int(size), os.fsdecode(name))


def _contents(content: bytes) -> list[bytes]:
    """Return the files in the output of ``cat-file``: of each its size on a line, then itself and the end of a line."""
    found, at = [], 0
    while at < len(content):
        begin = content.index(b"\n", at) + 1
        end = begin + int(content[at:begin])
        found.append(content[begin:end])
        at = end + 1
    return found


def _configured(from_afar: bool) -> list[str]:
    options = {**_OPTIONS, **(_FROM_AFAR if from_afar else {})}
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def _environment(limits: Limits, from_afar: bool) -> Mapping[str, str]:
    """Return the environment of git, which asks no question and holds no object beyond ``limits`` in memory."""
    environment = {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", **os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOC_LIMIT": str(limits.size), "LC_ALL": "C",
    }
    return environment | ({"GIT_CONFIG_GLOBAL": os.devnull} if from_afar else {})


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STEP)
    return process.returncode is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and whatever it has started."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # git renames and removes its own
            size += path.stat().st_size
    return size
