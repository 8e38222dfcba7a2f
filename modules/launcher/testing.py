"""Runs the whole suite with pytest, in the environment that was prepared for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROCESSES = "2"


def command(arguments: Sequence[str]) -> list[str]:
    """Return pytest's command line; ``arguments`` come last, so that they win."""
    return [sys.executable, "-m", "pytest", "-n", PROCESSES, *arguments]


def run(root: Path, arguments: Sequence[str]) -> int:
    """Run every test under ``root``, browser tests included, and return pytest's exit status."""
    return subprocess.run(command(arguments), cwd=root, check=False).returncode
