"""Network files by name, and the networks that a text of tags calls."""

from __future__ import annotations

from modules.adapters.calls import Call, read_call
from modules.core.errors import DarkroomError, InvalidRequest, NotFound
from modules.library.files import LORA, Library, ModelFile
from modules.library.headers import read_header
from modules.prompts.tags import extract

TAGS = ("lora", "lyco")
MAX_CALLS = 100


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


def find_network(name: str, library: Library) -> ModelFile:
    """Return the LoRA called ``name``, else the one that was trained under that name; raises ``NotFound``."""
    try:
        return library.find(LORA, name)
    except NotFound:
        for file in library.files(LORA):
            if _trained_as(file) == name:
                return file
        raise


def _trained_as(file: ModelFile) -> str:
    try:
        return read_header(file.path).metadata.get("ss_output_name", "")
    except DarkroomError:
        return ""
