"""What the pages say is what the code does: hooks, settings, flags, commands, links, words."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from docs.reference import FOLDER, PAGES
from modules.core.settings import setting_infos
from modules.launcher import commands
from modules.launcher.flags import flag_infos
from modules.plugin import Plugin
from modules.sampling.samplers import SAMPLERS
from modules.sampling.schedules import SCHEDULES

ROOT = Path(__file__).resolve().parents[2]
PAGES_OF_TEXT = sorted(path for folder, pattern in ((ROOT, "*.md"), (ROOT / "docs", "**/*.md"),
                                                    (ROOT / "benchmarks", "*.md"), (ROOT / "models", "*/README.md"))
                       for path in folder.glob(pattern))
README = (ROOT / "README.md").read_text("utf-8")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:python|venv/bin/python) (?:webui\.py|-m|\S+\.py).*$", re.MULTILINE)
FORBIDDEN = re.compile(r"\b(sub-?agent|chat ?gpt|claude|llm|to-?do|fixme|lorem|tbd|coming soon)\b", re.IGNORECASE)
page = pytest.mark.parametrize("path", PAGES_OF_TEXT, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(path: Path) -> str:
    return CODE.sub("", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """Return the fragments that headings of a page make, as hosts of repositories do."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_module(name: str) -> bool:
    """Return whether ``python -m name`` runs something of the project."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_the_pages_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in PAGES_OF_TEXT}
    assert {"README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "benchmarks/README.md"} <= names


@page
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(prose(path)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, fragment = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not fragment or fragment in anchors(target), link


@page
def test_words_that_do_not_belong(path: Path) -> None:
    assert not FORBIDDEN.findall(path.read_text("utf-8"))


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == PAGES[name](), "run: python -m docs.reference"


def test_every_setting_and_every_flag_has_its_line() -> None:
    settings, flags = PAGES["settings.md"](), PAGES["flags.md"]()
    assert [name for name in setting_infos() if f"| `{name}` |" not in settings] == []
    assert [name for name in flag_infos() if f"| `--{name.replace('_', '-')}" not in flags] == []


def test_the_plugin_page_lists_every_hook_with_its_signature() -> None:
    text = (ROOT / "docs/howto/write-a-plugin.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)(\(.*?\) -> .*?)` \|", text.replace(r"\|", "|"), re.MULTILINE)
    hooks = [(name, str(inspect.signature(member)).replace("'", "")) for name, member in vars(Plugin).items()
             if inspect.isfunction(member) and not name.startswith("_")]
    assert listed == hooks


@page
def test_commands_are_ones_that_exist(path: Path) -> None:
    for line in COMMAND.findall("\n".join(CODE.findall(path.read_text("utf-8")))):
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "webui.py":
            commands.parse(words[1:], {})
        elif words[0] == "-m":
            assert words[1] == "pytest" or is_module(words[1]), line
        else:
            assert (ROOT / words[0]).exists(), line


def test_the_two_commands_are_in_the_readme() -> None:
    assert "\npython webui.py\n" in README and "\npython webui.py test\n" in README


def test_flags_and_settings_of_the_readme_exist() -> None:
    flags = re.findall(r"`(--[a-z-]+)", README)
    known = {name for info_name, info in flag_infos().items()
             for name in (f"--{info_name.replace('_', '-')}", *info.aliases)} | {"--set"}
    assert flags and set(flags) <= known


def test_the_readme_names_every_sampler_and_schedule() -> None:
    text = " ".join(README.split())
    assert [item.name for item in SAMPLERS if item.name not in text] == []
    assert [item.label for item in SCHEDULES if item.label not in text] == []


def test_modules_of_make_bench_and_the_benchmarks_page_exist() -> None:
    text = (ROOT / "benchmarks/README.md").read_text("utf-8")
    named = [name.split(".")[-1] for name in re.findall(r"`python -m (benchmarks\.\w+)`", text)]
    files = [Path(name).stem for name in re.findall(r"`python (benchmarks/\w+\.py)`", text)]
    present = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("_")}
    assert {*named, *files} == present


def test_the_rooms_of_the_architecture_page_are_those_there_are() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"^  (\w+)/ ", text, re.MULTILINE))
    present = {path.parent.name for path in (ROOT / "modules").glob("*/__init__.py")}
    assert named == present
