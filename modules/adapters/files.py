"""Network files by name, and the networks that a text of tags calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from modules.adapters.calls import Call, read_call
from modules.core.errors import DarkroomError, InvalidRequest
from modules.library.files import LORA, Library, ModelFile, not_found
from modules.library.headers import read_header
from modules.prompts.tags import extract

TAGS = ("lora", "lyco")
MAX_CALLS = 100
File = TypeVar("File")


def read_calls(text: str) -> tuple[Call, ...]:
    """Return what the tags of ``text`` ask for, as a prompt's would: ``<lora:name:0.8>``, one after the other.

    Raises ``InvalidRequest`` for anything else in the text, and for tags that begin or end at a step.
    """
    rest, tags = extract(text)
    other = rest.strip() or next((str(tag) for tag in tags if tag.name not in TAGS), "")
    if other:
        raise InvalidRequest(f"LoRAs: {other[:60]!r} is no LoRA.", "Write <lora:name:weight>, as in a prompt.")
    if len(tags) > MAX_CALLS:
        raise InvalidRequest(f"At most {MAX_CALLS} LoRAs are merged at once.")
    calls = tuple(map(read_call, tags))
    for tag, call in zip(tags, calls, strict=True):
        if call.start or call.stop is not None:
            raise InvalidRequest(f"{tag}: what is merged has no steps.", "Leave start and stop out.")
    return calls


def named(files: Sequence[File], name: str, stem: Callable[[File], str], alias: Callable[[File], str]) -> list[File]:
    """Return those of ``files`` that are called ``name``, else those that were trained under it: A1111's rule.

    ``stem`` is a file's name without what it ends with, ``alias`` the name in its metadata.
    """
    return [one for one in files if stem(one) == name] or [one for one in files if alias(one) == name]


def find_network(name: str, library: Library) -> ModelFile:
    """Return the LoRA that a prompt calls ``name``; raises ``NotFound`` with names that are near."""
    files = library.files(LORA)
    found = named(files, name, lambda file: file.stem, _trained_as)
    if not found:
        raise not_found("lora", name, files)
    return found[0]


def _trained_as(file: ModelFile) -> str:
    try:
        return read_header(file.path).metadata.get("ss_output_name", "")
    except DarkroomError:
        return ""
