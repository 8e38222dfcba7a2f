"""Which packages are missing, and the pip commands that bring them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.launcher.flags import Flags
from modules.launcher.torch_builds import Build

CONSTRAINTS, REQUIREMENTS, TEST_REQUIREMENTS = "constraints.txt", "requirements.txt", "requirements-test.txt"
# Packages that are installed without what they ask for.
ALONE = "requirements-alone.txt"
XFORMERS = "xformers"
XFORMERS_PACKAGE = "xformers==0.0.35"

_QUIETLY = ("--disable-pip-version-check", "--no-input", "--prefer-binary", "--progress-bar", "off",
            "--no-warn-script-location")


@dataclass(frozen=True)
class Stamp:
    """What the last completed installation brought: kept beside the packages, absent while one is under way.

    ``python`` names the interpreter, ``torch`` the build, ``override`` what environment variables asked for in place
    of the table. ``installed`` maps a file of requirements, or ``xformers``, to a hash of what was asked for.
    """

    python: str = ""
    torch: str = ""
    override: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pins:
    """The files that say what to install; ``torch`` is empty, or the command that installs it in place of the table."""

    requirements: Path
    alone: Path
    constraints: Path
    tests: Path
    torch: str = ""


@dataclass(frozen=True)
class Step:
    """One command: what to say, and the words after ``python -m``; the program runs without an ``optional`` one."""

    text: str
    command: tuple[str, ...]
    optional: bool = False


def read_stamp(path: Path) -> Stamp:
    """Return the stamp at ``path``; one that is absent or damaged is empty, so that everything is looked at again."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return Stamp(values["python"], values["torch"], values["override"], dict(values["installed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Stamp()


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write ``stamp`` at once: a reader finds all of it or none."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(dataclasses.asdict(stamp), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def wanted(root: Path, flags: Flags, environ: Mapping[str, str], tests: bool) -> dict[str, str]:
    """Return what this start needs installed, each with a hash that changes when the pins do."""
    constraints = (root / CONSTRAINTS).read_bytes()
    names = (REQUIREMENTS, ALONE, TEST_REQUIREMENTS) if tests else (REQUIREMENTS, ALONE)
    needed = {name: _digest((root / name).read_bytes() + constraints) for name in names}
    if flags.xformers:
        needed[XFORMERS] = _digest(_xformers(environ).encode() + constraints)
    return needed


def missing(stamp: Stamp, needed: Mapping[str, str], python: str, override: str) -> tuple[str, ...]:
    """Return the names of ``needed`` that ``stamp`` does not cover; all of them for another Python or torch."""
    if (stamp.python, stamp.override) != (python, override):
        return tuple(needed)
    return tuple(name for name, digest in needed.items() if stamp.installed.get(name) != digest)


def torch_override(environ: Mapping[str, str]) -> str:
    """Return what ``TORCH_COMMAND`` or ``TORCH_INDEX_URL`` ask for, empty if neither is set."""
    return environ.get("TORCH_COMMAND", "") or environ.get("TORCH_INDEX_URL", "")


def finds_own_wheels(pip_config: str) -> bool:
    """Return whether pip is told where wheels are, judged by the output of ``pip config list``."""
    return bool(re.search(r"^[^=\s]*\.(find-links|no-index)=", pip_config, re.MULTILINE))


def pins(root: Path, folder: Path, environ: Mapping[str, str]) -> Pins:
    """Return the files that pin packages.

    ``TORCH_COMMAND`` may install any version of torch, so copies without its pin are written to ``folder`` for it.
    """
    command = environ.get("TORCH_COMMAND", "")
    tests = root / TEST_REQUIREMENTS
    if not command:
        return Pins(root / REQUIREMENTS, root / ALONE, root / CONSTRAINTS, tests)
    copies = [folder / f"{Path(name).stem}-without-torch.txt" for name in (REQUIREMENTS, CONSTRAINTS)]
    for copy, name in zip(copies, (REQUIREMENTS, CONSTRAINTS), strict=True):
        copy.write_text(without_torch((root / name).read_text(encoding="utf-8")), encoding="utf-8")
    return Pins(copies[0], root / ALONE, copies[1], tests, command)


def without_torch(text: str) -> str:
    """Return the lines of a file of requirements other than the one that pins torch."""
    return "".join(line for line in text.splitlines(keepends=True) if not re.match(r"torch\s*[=<>~!]", line))


def steps(names: Sequence[str], build: Build, files: Pins, flags: Flags, environ: Mapping[str, str]) -> list[Step]:
    """Return the commands that install ``names`` (of ``wanted``), in order; torch comes first, in its own build."""
    index = ("--index-url", environ["INDEX_URL"]) if environ.get("INDEX_URL") else ()
    install = ("pip", "install", *_QUIETLY, *index, "-c", str(files.constraints))
    todo: list[Step] = []
    if flags.reinstall_torch:
        todo.append(Step("Removing torch", ("pip", "uninstall", "--yes", "torch")))
    if REQUIREMENTS in names:
        todo.append(_torch_step(install, build, files))
        todo.append(Step("Installing everything else", (*install, "-r", str(files.requirements))))
    if ALONE in names:
        todo.append(Step("Installing the upscalers", (*install, "--no-deps", "-r", str(files.alone))))
    if TEST_REQUIREMENTS in names:
        todo.append(Step("Installing what the tests need", (*install, "-r", str(files.tests))))
    if XFORMERS in names:
        again = ("--force-reinstall", "--no-deps") if flags.reinstall_xformers else ()
        todo.append(Step("Installing xformers", (*install, *again, _xformers(environ)), optional=True))
    return todo


def _torch_step(install: tuple[str, ...], build: Build, files: Pins) -> Step:
    if files.torch:
        return Step(f"Installing torch as TORCH_COMMAND says: {files.torch}", tuple(shlex.split(files.torch)))
    where = ("--extra-index-url", build.index_url) if build.index_url else ()
    return Step(f"Installing {' '.join(build.packages)}. {build.note}", (*install, *where, *build.packages))


def _xformers(environ: Mapping[str, str]) -> str:
    return environ.get("XFORMERS_PACKAGE") or XFORMERS_PACKAGE


def _digest(content: bytes) -> str:
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
