"""Runs pip, shows what it does, and says in plain words why it failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

from modules.core.errors import DarkroomError, DiskFull
from modules.launcher.packages import Step
from modules.launcher.terminal import ProgressLine, say

LINES_KEPT = 400

_DISK = re.compile(r"No space left on device|\[Errno 28\]|not enough space|ENOSPC", re.IGNORECASE)
_NO_PACKAGE = re.compile(r"No matching distribution found for (\S+)")
_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|Connection(Reset|Refused|Aborted)?Error|ProxyError|SSLError|"
    r"Temporary failure in name resolution|Name or service not known|getaddrinfo failed|Network is unreachable|"
    r"Read timed out|Max retries exceeded|No route to host", re.IGNORECASE)
_PERMISSION = re.compile(r"Permission denied|\[Errno 13\]|externally-managed-environment", re.IGNORECASE)
_HASH = re.compile(r"DO NOT MATCH THE HASHES", re.IGNORECASE)


def run(step: Step, log: Path) -> None:
    """Run ``step`` with this interpreter; pip's whole output is appended to ``log``.

    Raises ``DarkroomError`` (``DiskFull`` for want of space) with the reason and what to do if the command fails.
    """
    say(step.text)
    lines: deque[str] = deque(maxlen=LINES_KEPT)
    command = [sys.executable, "-u", "-m", *step.command]
    with log.open("a", encoding="utf-8") as written, ProgressLine() as progress, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
    ) as process:
        written.write(f"$ {' '.join(command)}\n")
        for line in process.stdout or ():
            written.write(line)
            lines.append(line)
            progress.show(line)
    if process.returncode:
        raise explain("".join(lines), log)


def explain(output: str, log: Path) -> DarkroomError:
    """Return the error that pip's ``output`` amounts to."""
    again = "Then start again: what is already installed is kept."
    if _DISK.search(output):
        return DiskFull("The disk is full.", f"Make room in {log.parent} and in the folder of temporary files. {again}")
    if _NETWORK.search(output):
        return DarkroomError("Packages could not be downloaded: there is no connection to the package index.",
                             f"Check the network, or the proxy in HTTPS_PROXY. {again} pip's output is in {log}.")
    if match := _NO_PACKAGE.search(output):
        return DarkroomError(f"There is no {match[1]} for Python {sys.version_info[0]}.{sys.version_info[1]} here.",
                             "Use Python 3.11, 3.12 or 3.13 of 64 bits; TORCH_INDEX_URL names another index for torch. "
                             f"pip's output is in {log}.")
    if _PERMISSION.search(output):
        return DarkroomError("Packages may not be written to this Python.",
                             "Leave VENV_DIR unset, or point it to a folder that you may write to.")
    if _HASH.search(output):
        return DarkroomError("A download was damaged.", f"Start again. pip's output is in {log}.")
    return DarkroomError("pip failed:\n" + _tail(output), f"Its whole output is in {log}.")


def configuration() -> str:
    """Return what ``pip config list`` prints, empty if it fails."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=False,
                            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return result.stdout if result.returncode == 0 else ""


def _tail(output: str, lines: int = 12) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])
