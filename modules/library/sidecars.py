"""The texts beside a model file: read as A1111 and Civitai Helper write them, written as A1111 does."""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modules.core.errors import InvalidRequest
from modules.library.writing import write_whole

MAX_BYTES = 4 * 1024 * 1024
MAX_TEXT = 100_000
MAX_WEIGHT = 100.0
# What the file calls each field; A1111's names.
KEYS: Mapping[str, str] = {
    "description": "description", "activation": "activation text", "weight": "preferred weight",
    "negative": "negative text", "notes": "notes", "version": "sd version",
}
UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Sidecar:
    """What is known of a network beside its weights.

    ``activation`` and ``negative`` go into the prompts with its tag; ``weight`` is that of the tag, 0 for none.
    ``version`` is the model it was made for, in whatever words.
    """

    description: str = ""
    activation: str = ""
    weight: float = 0.0
    negative: str = ""
    notes: str = ""
    version: str = ""


@dataclass(frozen=True)
class Texts:
    """What lies beside a model: ``own`` of ``.json``, and what others say where it is silent.

    ``found`` is Civitai's, or that of a ``.txt``; ``title`` is Civitai's name. ``problem`` says why ``.json`` could
    not be read.
    """

    own: Sidecar = Sidecar()
    found: Sidecar = Sidecar()
    title: str = ""
    problem: str = ""

    @property
    def shown(self) -> Sidecar:
        """Each field from ``own``, else from ``found``."""
        return Sidecar(**{item.name: getattr(self.own, item.name) or getattr(self.found, item.name)
                          for item in fields(Sidecar)})


def read_texts(base: str) -> Texts:
    """Return what lies beside the model whose path without suffix is ``base``; what is damaged counts as absent."""
    try:
        own, problem = _read_json(f"{base}.json"), ""
    except InvalidRequest as error:
        own, problem = {}, error.message
    try:
        info = _read_json(f"{base}.civitai.info")
    except InvalidRequest:
        info = {}
    found = _civitai(info)
    description = found.description or next(filter(None, map(_read_text, (f"{base}.txt", f"{base}.description.txt"))),
                                            "")
    model = info.get("model")
    title = storable(model.get("name")) if isinstance(model, dict) else ""
    return Texts(_own(own), Sidecar(description, found.activation, version=found.version), title, problem)


def write_sidecar(base: str, changes: Mapping[str, Any]) -> None:
    """Change the given fields in ``base.json`` and keep everything else in it; the file is always the old or the new.

    Raises ``InvalidRequest`` for an unknown field, a value out of range, or a file that holds something else, which
    stays as it is; ``DiskFull`` where it cannot be written.
    """
    checked = {KEYS[name]: value for name, value in check_changes(changes).items()}
    path = Path(f"{base}.json")
    content = {**_read_json(str(path)), **checked}
    write_whole(path, json.dumps(content, indent=4, ensure_ascii=False).encode("utf-8", "replace"))


def check_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``changes`` in their types; raises ``InvalidRequest`` naming the field."""
    checked: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in KEYS:
            raise InvalidRequest(f"{name[:60]!r} is none of {', '.join(KEYS)}.")
        if name == "weight":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_WEIGHT:
                raise InvalidRequest(f"weight: a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g} is expected.")
        elif not isinstance(value, str) or len(value) > MAX_TEXT:
            raise InvalidRequest(f"{name}: a text of at most {MAX_TEXT:,} characters is expected.")
        checked[name] = value
    return checked


def _read_json(path: str) -> dict[str, Any]:
    """Return the object in a file, empty without one; raises ``InvalidRequest`` for anything else."""
    name = os.path.basename(path)
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise InvalidRequest(f"{name} is larger than a sidecar can be.", "It was left as it is.")
        content = json.loads(Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read: {error.strerror}.", "Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} is no JSON.", "It was left as it is; repair it, or move it away.") from error
    if not isinstance(content, dict):
        raise InvalidRequest(f"{name} is no JSON object.", "It was left as it is; repair it, or move it away.")
    return content


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(MAX_TEXT).strip()
    except OSError:
        return ""


def _own(content: Mapping[str, Any]) -> Sidecar:
    values = {name: storable(content.get(key)) for name, key in KEYS.items() if name != "weight"}
    version = values.pop("version")
    return Sidecar(**values, weight=_number(content.get(KEYS["weight"])), version="" if version == UNKNOWN else version)


def _civitai(info: Mapping[str, Any]) -> Sidecar:
    model = info.get("model")
    told = info.get("description") or (model.get("description") if isinstance(model, dict) else "")
    words = info.get("trainedWords")
    named = (storable(word).strip(" ,") for word in words) if isinstance(words, list) else ()
    activation = ", ".join(filter(None, named))
    return Sidecar(plain(storable(told)), activation[:MAX_TEXT], version=storable(info.get("baseModel")))


def plain(text: str) -> str:
    """Return the text of a piece of HTML, as it can be stored; Civitai's descriptions are that."""
    broken = re.sub(r"<(?:br|/p|/li|/h\d)[^<>]*>", "\n", text, flags=re.IGNORECASE)
    return storable(re.sub(r"\n{3,}", "\n\n", html.unescape(re.sub(r"</?[a-zA-Z!][^<>]*>", "", broken))).strip())


def storable(value: Any) -> str:
    """Return a text that can be stored: not too long, without halves of characters."""
    return value[:MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) and abs(number) <= MAX_WEIGHT else 0.0
