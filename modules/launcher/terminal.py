"""What the launcher says, and how pip's output becomes one calm line. Everything goes to standard error."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from types import TracebackType
from urllib.parse import unquote

from modules.core.errors import DarkroomError

LARGE_MEGABYTES = 20.0

_DOWNLOAD = re.compile(r"^\s*Downloading (?P<file>\S+)(?: \((?P<size>[\d.]+) (?P<unit>[kMG])B\))?")
_COLLECTING = re.compile(r"^(?:Collecting|Processing|Requirement already satisfied:) (?P<name>\S+)")
_INSTALLING = re.compile(r"^Installing collected packages: (?P<names>.+)")
_MEGABYTES = {"k": 0.001, "M": 1.0, "G": 1000.0}


def say(text: str) -> None:
    """Print one line."""
    print(text, file=sys.stderr, flush=True)


def warn(lines: Iterable[str]) -> None:
    """Print one line for each of ``lines``, marked as a warning."""
    for line in lines:
        say(f"Warning: {line}")


def fail(error: DarkroomError) -> None:
    """Print what happened and what to do about it."""
    say(f"Error: {error.message}")
    if error.hint:
        say(f"       {error.hint}")


def summary(line: str) -> tuple[str, bool]:
    """Return what to show of one line of pip's output, and whether it is worth a line of its own in a log."""
    if match := _DOWNLOAD.match(line):
        name = match["file"].rsplit("/", 1)[-1]
        megabytes = float(match["size"]) * _MEGABYTES[match["unit"]] if match["size"] else 0.0
        size = f" ({megabytes:.0f} MB)" if megabytes >= 1 else ""
        return f"downloading {_package(name)}{size}", megabytes >= LARGE_MEGABYTES
    if match := _INSTALLING.match(line):
        return f"unpacking {len(match['names'].split(','))} packages", True
    if match := _COLLECTING.match(line):
        return f"resolving {re.split('[<>=!~ ;[]', _package(match['name'].rsplit('/', 1)[-1]))[0]}", False
    return "", False


class ProgressLine:
    """Shows what pip is doing: on a terminal one line that is rewritten, in a log only what takes long."""

    def __enter__(self) -> ProgressLine:
        self._live = sys.stderr.isatty()
        self._last = ""
        return self

    def show(self, line: str) -> None:
        """Take one line of pip's output."""
        text, notable = summary(line)
        if not text or text == self._last:
            return
        self._last = text
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{'  ' + text:.{width}}")
            sys.stderr.flush()
        elif notable:
            say(f"  {text}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _package(file: str) -> str:
    """Return name and version of a wheel's file name."""
    file = unquote(file)
    parts = file.removesuffix(".metadata").split("-")
    return " ".join(parts[:2]) if file.endswith((".whl", ".metadata")) and len(parts) > 2 else file
