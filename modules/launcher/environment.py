"""The environment of installed packages: made once, filled when the pins change, entered at every start."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from modules.core.errors import DarkroomError, DiskFull
from modules.launcher import packages, pip
from modules.launcher.flags import Flags
from modules.launcher.hardware import read_system
from modules.launcher.terminal import say, warn
from modules.launcher.torch_builds import Build, choose_build, configured_build, indexed_build, xformers_obstacle

STAMP, LOG = ".darkroom-install.json", "darkroom-install.log"

_REACHES_ACCELERATOR = "import torch, sys; sys.exit(0 if torch.cuda.is_available() or torch.xpu.is_available() else 3)"


def prepare(root: Path, flags: Flags, arguments: Sequence[str], tests: bool = False) -> None:
    """Return once every pinned package can be imported; restarts the program inside its environment where needed.

    ``root`` is the folder of webui.py, ``arguments`` what it was started with, ``tests`` asks for the tests' packages
    too. Raises ``DarkroomError`` with what to do if the environment cannot be made or filled.
    """
    if flags.skip_prepare_environment:
        return
    folder = environment_folder(root, os.environ)
    if folder is not None and not _is_current(folder):
        if _python(folder) is None and flags.skip_install:
            return
        _restart(_python(folder) or _create(folder), root, arguments)
    if not flags.skip_install:
        install(root, flags, tests, folder or _own_folder(root))


def environment_folder(root: Path, environ: Mapping[str, str]) -> Path | None:
    """Return where the environment is: ``VENV_DIR`` (relative to ``root``), or None if it is ``-``."""
    name = environ.get("VENV_DIR", "").strip().strip('"') or "venv"
    if name == "-" or environ.get("SKIP_VENV") == "1":
        return None
    return root / Path(name).expanduser()


def install(root: Path, flags: Flags, tests: bool, folder: Path) -> None:
    """Install what is missing into this interpreter; ``folder`` keeps the stamp and pip's log."""
    stamp_path = folder / STAMP
    python = f"{sys.version_info[0]}.{sys.version_info[1]} {sys.prefix}"
    override = packages.torch_override(os.environ)
    stamp, needed = packages.read_stamp(stamp_path), packages.wanted(root, flags, os.environ, tests)
    names = _with_reinstalls(packages.missing(stamp, needed, python, override), flags)
    build = _build() if packages.REQUIREMENTS in names else Build(stamp.torch, None, ())
    if packages.XFORMERS in names and (obstacle := _xformers_obstacle(build)):
        warn([f"xformers is not installed: {obstacle}. Attention is computed without it."])
        names = tuple(name for name in names if name != packages.XFORMERS)
        needed.pop(packages.XFORMERS, None)
    if not names:
        return
    started = time.monotonic()
    _check_room(folder, build)
    _ensure_pip()
    stamp_path.unlink(missing_ok=True)
    files = packages.pins(root, folder, os.environ)
    for step in packages.steps(names, build, files, flags, os.environ):
        if not _run(step, folder / LOG):
            needed.pop(packages.XFORMERS, None)
    importlib.invalidate_caches()
    kept = dict(stamp.installed) if (stamp.python, stamp.override) == (python, override) else {}
    packages.write_stamp(stamp_path, packages.Stamp(python, build.name, override, kept | needed))
    say(f"Installed in {time.monotonic() - started:.0f} s. The next start skips this.")
    if packages.REQUIREMENTS in names and not flags.skip_torch_cuda_test:
        _check_accelerator(build)


def _with_reinstalls(names: tuple[str, ...], flags: Flags) -> tuple[str, ...]:
    again = [packages.REQUIREMENTS] if flags.reinstall_torch else []
    again += [packages.XFORMERS] if flags.reinstall_xformers else []
    return tuple(dict.fromkeys([*again, *names]))


def _run(step: packages.Step, log: Path) -> bool:
    """Return whether ``step`` worked; raises where the program cannot do without it."""
    try:
        pip.run(step, log)
    except DarkroomError as error:
        if not step.optional:
            raise
        warn([f"{step.text} failed, and the program goes on without it. {error}"])
        return False
    return True


def _xformers_obstacle(build: Build) -> str:
    return "" if os.environ.get("XFORMERS_PACKAGE") else xformers_obstacle(read_system(), build.name)


def _build() -> Build:
    if index_url := os.environ.get("TORCH_INDEX_URL"):
        return indexed_build(index_url)
    if packages.finds_own_wheels(pip.configuration()):
        return configured_build()
    return choose_build(read_system())


def _check_room(folder: Path, build: Build) -> None:
    if importlib.util.find_spec("torch") is not None:
        return
    free = shutil.disk_usage(folder).free / 1e9
    if free < build.gigabytes:
        raise DiskFull(f"Installing takes about {build.gigabytes:.0f} GB, and {folder} has {free:.1f} GB left.",
                       "Make room, or set VENV_DIR to a folder on another disk.")


def _check_accelerator(build: Build) -> None:
    if not build.name.startswith(("cu", "rocm", "xpu")):
        return
    result = subprocess.run([sys.executable, "-c", _REACHES_ACCELERATOR], check=False, capture_output=True)
    if result.returncode:
        warn([f"torch's build {build.name} does not reach the graphics card; pictures will be made on the CPU. "
              "Update its driver, or choose another build with TORCH_INDEX_URL and --reinstall-torch."])


def _create(folder: Path) -> Path:
    """Make the environment and return its interpreter; only what is an environment already is ever cleared."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise DarkroomError("This Python cannot make environments: its module venv is missing.",
                            f"On Debian and Ubuntu: sudo apt install python{version}-venv. Or set VENV_DIR=- to use "
                            "this Python itself.")
    say(f"Making the environment {folder} (Python {sys.version.split()[0]})")
    clear = ["--clear"] if (folder / "pyvenv.cfg").exists() else []
    command = [sys.executable, "-m", "venv", *clear, str(folder)]
    result = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    python = _python(folder)
    if result.returncode or python is None:
        raise pip.explain(result.stdout, folder / LOG)
    return python


def _ensure_pip() -> None:
    """Put pip into this interpreter; making an environment may have been interrupted before that."""
    if importlib.util.find_spec("pip") is not None:
        return
    say("Installing pip")
    command = [sys.executable, "-m", "ensurepip", "--default-pip"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise DarkroomError("This Python has no pip.", "Install pip for it, or leave VENV_DIR unset.")
    importlib.invalidate_caches()


def _restart(python: Path, root: Path, arguments: Sequence[str]) -> None:
    command = [str(python), str(root / "webui.py"), *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        os.execv(command[0], command)
    with subprocess.Popen(command) as process:  # on Windows execv would hand the console back too early
        while True:
            try:
                sys.exit(process.wait())
            except KeyboardInterrupt:
                continue  # the child has it too and ends in its own time


def _python(folder: Path) -> Path | None:
    """Return the interpreter in ``folder``, None if there is none that can be run."""
    names = ("Scripts/python.exe",) if sys.platform == "win32" else ("bin/python", "bin/python3")
    return next((folder / name for name in names if os.access(folder / name, os.X_OK)), None)


def _is_current(folder: Path) -> bool:
    return folder.exists() and os.path.samefile(folder, sys.prefix)


def _own_folder(root: Path) -> Path:
    """Return where an environment that is not ours keeps its stamp: with it, or with us if it is read-only."""
    return Path(sys.prefix) if os.access(sys.prefix, os.W_OK) else root
