"""Each how-to carried out on a copy of the project: its files written, its changes made, its tests run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import architecture_rules as rules

ROOT = Path(__file__).resolve().parents[2]
HOWTO = ROOT / "docs" / "howto"
COPIED = ("modules", "extensions", "tests", "docs", "pyproject.toml", "webui.py")
BLOCK = re.compile(r'^```(?P<kind>python|diff) title="(?P<path>[^"]+)"\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
# What else of the project's own tests must pass with the change made.
ALSO = {
    "add-a-sampler": ("tests/sampling/test_samplers.py", "-k", "Ralston"),
    "add-a-family": ("tests/families/test_families.py", "-k", "names or import"),
    "add-a-tab": (),
    "write-a-plugin": (),
}
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Block:
    """A block of a page that is a whole file (``python``) or a change to one (``diff``)."""

    kind: str
    path: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of ``page`` that have a title, in order."""
    return [Block(**match.groupdict()) for match in BLOCK.finditer(page)]


def changed(source: str, diff: str) -> str:
    """Return ``source`` with ``diff`` carried out, whose old lines must stand there exactly once."""
    lines = [line if line else " " for line in diff.splitlines()]
    old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    assert source.count(old) == 1, f"these lines occur {source.count(old)} times:\n{old}"
    return source.replace(old, new)


def carry_out(page: str, root: Path) -> list[str]:
    """Write and change the files of ``page`` below ``root``; return their paths."""
    for block in blocks(page):
        path = root / block.path
        if block.kind == "diff":
            path.write_text(changed(path.read_text("utf-8"), block.text), "utf-8")
        else:
            assert not path.exists(), f"{block.path} exists already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
    return list(dict.fromkeys(block.path for block in blocks(page)))


def run(root: Path, *command: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": "", "PYTEST_XDIST_WORKER": ""}
    result = subprocess.run([sys.executable, "-m", *command], cwd=root, env=environment, check=False, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout


def complaints(root: Path, paths: list[str]) -> list[str]:
    """Return what the rules of the architecture have against the files at ``paths``."""
    layers = rules.read_layers((root / "docs" / "ARCHITECTURE.md").read_text("utf-8"))
    product = rules.python_files(root, "modules", "extensions")
    everything = product + rules.python_files(root, "tests")
    found = [*rules.layer_complaints(product, layers), *rules.extension_complaints(product),
             *rules.library_complaints(product), *rules.cycle_complaints(product),
             *rules.size_complaints(everything), *rules.name_complaints(everything)]
    return [complaint for complaint in found if any(path in complaint for path in paths)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
        else:
            shutil.copy(source, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ALSO)
def test_a_howto_does_what_it_says(name: str, project: Path) -> None:
    paths = carry_out((HOWTO / f"{name}.md").read_text("utf-8"), project)
    tests = [path for path in paths if path.startswith("tests/")]
    product = [path for path in paths if not path.startswith("tests/")]
    assert tests and product
    run(project, "ruff", "check", *paths)
    run(project, "mypy", *product)
    assert complaints(project, paths) == []
    run(project, "pytest", "-q", "-p", "no:cacheprovider", *tests)
    if ALSO[name]:
        run(project, "pytest", "-q", "-p", "no:cacheprovider", *ALSO[name])


def test_every_howto_is_carried_out() -> None:
    assert {path.stem for path in HOWTO.glob("*.md")} == set(ALSO)


@pytest.mark.parametrize("diff", ["+new\n absent\n", "-same\n"])
def test_a_change_whose_place_is_not_clear_is_an_error(diff: str) -> None:
    with pytest.raises(AssertionError, match="times"):
        changed("same\nsame\n", diff)


def test_a_change_puts_lines_where_they_belong() -> None:
    assert changed("a\n\nb\n", " a\n\n+new\n-b\n+c\n") == "a\n\nnew\nc\n"
