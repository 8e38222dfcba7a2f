"""Finding plugins on disk and handing them their parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.host.discover import discover
from modules.host.registry import Host
from modules.plugin.hooks import infotext

GOOD = '''
from dataclasses import dataclass
from modules.plugin import Plugin, param
from .words import WORD

@dataclass(frozen=True)
class Params:
    word: str = param(WORD, "Word", infotext="Good word")

class Good(Plugin):
    id = "good"
    name = "Good"
    Params = Params
    closed = False
    def on_close(self):
        type(self).closed = True
'''


def write(folder: Path, name: str, files: dict[str, str]) -> None:
    (folder / name).mkdir(parents=True)
    for file, text in files.items():
        (folder / name / file).write_text(text)


def host(folder: Path, disabled: frozenset[str] = frozenset()) -> Host:
    return Host(discover([folder, folder / "absent"], folder, {}, disabled))


def test_plugins_are_found_by_folder_and_may_import_their_own_files(tmp_path: Path) -> None:
    write(tmp_path, "good", {"plugin.py": GOOD, "words.py": "WORD = 'hello'"})
    write(tmp_path, ".hidden", {"plugin.py": GOOD})
    write(tmp_path, "no_plugin", {"readme.txt": ""})
    found = host(tmp_path)
    assert [item.id for item in found.found] == ["good"]
    (active,) = found.active(Request(plugins={"good": {"word": "bye"}}))
    assert active.params.word == "bye"
    assert infotext((active,)) == {"Good word": "bye"}
    assert infotext(found.active(Request())) == {}
    found.close()
    assert active.plugin.closed


@pytest.mark.parametrize(("source", "reason"), [
    ("import no_such_module_anywhere", "no_such_module_anywhere"),
    ("def broken(:", "SyntaxError"),
    ("x = 1", "one subclass of Plugin, not 0"),
    ("raise ValueError('at import')", "at import"),
])
def test_a_broken_plugin_is_named_and_the_others_load(tmp_path: Path, source: str, reason: str) -> None:
    write(tmp_path, "bad", {"plugin.py": source})
    write(tmp_path, "good", {"plugin.py": GOOD, "words.py": "WORD = 'hello'"})
    found = host(tmp_path)
    assert reason in found.failures()["bad"]
    assert [active.plugin.id for active in found.active(Request())] == ["good"]
    with pytest.raises(InvalidRequest, match="bad"):
        found.active(Request(plugins={"bad": {}}))


def test_a_disabled_plugin_is_listed_and_not_imported(tmp_path: Path) -> None:
    write(tmp_path, "off", {"plugin.py": "raise SystemExit('imported')"})
    found = host(tmp_path, frozenset({"off"}))
    assert [(item.id, item.plugin, item.error) for item in found.found] == [("off", None, "")]
    with pytest.raises(InvalidRequest, match="turned off"):
        found.active(Request(plugins={"off": {}}))


def test_an_unknown_plugin_or_bad_value_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "good", {"plugin.py": GOOD, "words.py": "WORD = 'hello'"})
    with pytest.raises(InvalidRequest, match="no extension 'nothing'"):
        host(tmp_path).active(Request(plugins={"nothing": {}}))
    with pytest.raises(InvalidRequest, match="good.word"):
        host(tmp_path).active(Request(plugins={"good": {"word": 1}}))
