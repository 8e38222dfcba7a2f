"""What a fetched extension says of itself, read without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import InvalidRequest

PLUGIN, REQUIREMENTS = "plugin.py", "requirements.txt"
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Python's parser takes up to a thousand times as much memory.
MAX_PLUGIN_BYTES = 256 * 1024
MAX_REQUIREMENTS_BYTES = 64 * 1024
MAX_TEXT, MAX_DESCRIPTION = 100, 2_000
# PEP 508 without addresses: a name, extras, versions (PEP 440) and a marker.
_VERSION = r"(?:===?|~=|!=|[<>]=?)\s*[A-Za-z0-9.*+!_-]+"
_PACKAGE = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s*(?:\[[A-Za-z0-9._, -]*\])?\s*"
                      rf"(?:{_VERSION}(?:\s*,\s*{_VERSION})*)?\s*(?:;[A-Za-z0-9 ._<>=!~'\"()+*,-]+)?")


@dataclass(frozen=True)
class Offer:
    """An extension that can be installed: texts of one line each, its revision, and the packages that it asks for."""

    id: str
    name: str
    version: str
    description: str
    revision: str
    packages: tuple[str, ...]


def examine(folder: Path, revision: str) -> Offer:
    """Return what the extension in ``folder`` says of itself.

    Raises ``InvalidRequest`` where it is none, where its id is no folder's name, where a text is too long or cannot be
    shown, or where its requirements contain anything but names and versions of packages.
    """
    if not (folder / PLUGIN).is_file():
        raise InvalidRequest("It is no extension of Darkroom: there is no plugin.py.")
    told = _constants(_text(folder / PLUGIN, MAX_PLUGIN_BYTES, "utf-8-sig"))
    if not NAME.fullmatch(told.get("id", "")):
        raise InvalidRequest(f"Its id {told.get('id', '')[:100]!r} is no name of a folder.")
    return Offer(told["id"], _line(told, "name", MAX_TEXT) or told["id"], _line(told, "version", MAX_TEXT),
                 _line(told, "description", MAX_DESCRIPTION), revision, _packages(folder / REQUIREMENTS))


def _text(path: Path, most: int, encoding: str) -> str:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InvalidRequest(f"Its {path.name} has more than {most:,} bytes.")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Its {path.name} is no text in {error.encoding}.") from error


def _constants(source: str) -> dict[str, str]:
    """Return the texts that the first subclass of ``Plugin`` assigns to names."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidRequest(f"Its plugin.py is damaged: {error or 'it is nested too deeply'}.") from error
    for node in body:
        if isinstance(node, ast.ClassDef) and any(_last_name(base).endswith("Plugin") for base in node.bases):
            return {
                target.id: item.value.value for item in node.body if isinstance(item, ast.Assign)
                for target in item.targets
                if isinstance(target, ast.Name) and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            }
    return {}


def _last_name(node: ast.expr) -> str:
    """Return ``C`` of ``C`` and of ``a.b.C``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _line(told: Mapping[str, str], key: str, most: int) -> str:
    line = " ".join(told.get(key, "").split())
    if len(line) > most or not line.isprintable():
        raise InvalidRequest(f"Its {key} is no line of at most {most:,} characters that can be shown: {line[:100]!r}.")
    return line


def _packages(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in
             _text(path, MAX_REQUIREMENTS_BYTES, "ascii").splitlines())
    wanted = tuple(line for line in lines if line)
    odd = [line for line in wanted if not _PACKAGE.fullmatch(line)]
    if odd:
        raise InvalidRequest(f"Its requirements.txt asks for {odd[0][:200]!r}, which is no package of an index.",
                             "Options, addresses and paths are refused.")
    return wanted
