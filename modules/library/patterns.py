"""A1111's patterns for names of files and folders: ``[seed]``, ``[datetime<%H-%M>]``, ``[prompt_words]`` ..."""

from __future__ import annotations

import hashlib
import re
import string
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

MAX_PART = 128
MAX_NAME_BYTES = 200
PROMPT_WORDS = 8

_TOKEN = re.compile(r"([^\[]*)(?:\[([^\[\]]+)\]|(\[)|$)")
_ARGUMENT = re.compile(r"<([^<>]*)>")
_INVALID = re.compile(r'[#<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_WORD_BREAKS = re.compile(rf"[\s{re.escape(string.punctuation)}]+")


@dataclass(frozen=True)
class Facts:
    """What patterns can put into a name.

    ``seeds`` are those of the whole job, ``denoising`` is None without a second pass, ``pictures`` counts the job's
    pictures and ``generation_number`` (from 1) this one among them. ``now`` names the time zone it is meant in.
    ``image_hash`` gives the sha256 of the pixels and is called only where a pattern asks for it.
    """

    seed: int
    now: datetime
    prompt: str = ""
    negative_prompt: str = ""
    prompt_no_styles: str = ""
    styles: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    width: int = 0
    height: int = 0
    steps: int = 0
    guidance_scale: float = 0.0
    sampler: str = ""
    schedule: str = ""
    model_name: str = ""
    model_hash: str = ""
    vae: str = ""
    batch_number: int = 1
    batch_size: int = 1
    generation_number: int = 1
    pictures: int = 1
    clip_skip: int = 1
    denoising: float | None = None
    user: str = ""
    job_timestamp: str = ""
    basename: str = ""
    image_hash: Callable[[], str] = lambda: ""


def expand(pattern: str, facts: Facts) -> str:
    """Return ``pattern`` with its tokens replaced; an unknown token stays as it is written.

    Tokens never bring a ``/`` or anything else into the name that a file system gives a meaning. A token that has
    nothing to say in this job (``[batch_number]`` of a single picture) also drops the text in front of it.
    """
    result = ""
    for text, token, bracket in _TOKEN.findall(pattern):
        name, arguments = _split(token)
        write = _TOKENS.get(name.lower())
        if not token or write is None:
            result += f"{text}{f'[{token}]' if token else bracket}"
            continue
        value = write(facts, arguments)
        if value is not None:
            result += text + value
    return result


def safe_path(expanded: str) -> tuple[str, ...]:
    """Return the parts of a relative path, each a name that any file system accepts; empty and dot parts dropped.

    Whatever was expanded, the path stays below the folder it is appended to.
    """
    parts = (sanitised(part, spaces="keep") for part in re.split(r"[/\\]", expanded))
    return tuple(shortened(part, MAX_NAME_BYTES) for part in parts if part)


def sanitised(text: str, spaces: str = "_") -> str:
    """Return ``text`` as a part of a name: forbidden characters and, unless ``keep``, spaces become ``_``.

    At most 128 characters, without leading spaces and dots or trailing ones, and none of Windows' reserved names.
    """
    text = text.replace(" ", "_") if spaces != "keep" else text
    text = cleaned(text).lstrip(" .")[:MAX_PART].rstrip(" .")
    return f"_{text}" if _RESERVED.fullmatch(text) else text


def cleaned(text: str) -> str:
    """Return ``text`` with each character that has a meaning to a file system replaced by ``_``."""
    return _INVALID.sub("_", text)


def shortened(name: str, max_bytes: int) -> str:
    """Return ``name`` cut to ``max_bytes`` of UTF-8, without spaces and dots at its end."""
    return name.encode("utf-8", errors="replace")[:max_bytes].decode("utf-8", errors="ignore").rstrip(" .")


def _split(token: str) -> tuple[str, list[str]]:
    start = token.find("<")
    if start < 0 or not token.endswith(">"):
        return token, []
    return token[:start], _ARGUMENT.findall(token[start:])


_Write = Callable[[Facts, list[str]], str | None]


def _fact(name: str) -> _Write:
    return lambda facts, arguments: sanitised(str(getattr(facts, name)), spaces="keep")


def _first_of(name: str, index: int) -> _Write:
    return lambda facts, arguments: str((getattr(facts, name) or (facts.seed,))[index])


def _date(facts: Facts, arguments: list[str]) -> str:
    return facts.now.strftime("%Y-%m-%d")


def _datetime(facts: Facts, arguments: list[str]) -> str:
    now, layout = facts.now, arguments[0] if arguments and arguments[0] else "%Y%m%d%H%M%S"
    try:
        if len(arguments) > 1 and arguments[1]:
            now = now.astimezone(zoneinfo.ZoneInfo(arguments[1]))
        text = now.strftime(layout)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        text = facts.now.strftime("%Y%m%d%H%M%S")
    return sanitised(text, spaces="keep")


def _hash_of(text: Callable[[Facts], str]) -> _Write:
    return lambda facts, arguments: _digits(hashlib.sha256(text(facts).encode("utf-8", "replace")).hexdigest(),
                                            arguments, 8)


def _image_hash(facts: Facts, arguments: list[str]) -> str:
    return _digits(facts.image_hash(), arguments, 64)


def _digits(text: str, arguments: list[str], default: int) -> str:
    length = arguments[0] if arguments else ""
    return text[: int(length[:4]) if length.isdecimal() else default]


def _words(facts: Facts, arguments: list[str]) -> str:
    words = [word for word in _WORD_BREAKS.split(facts.prompt) if word] or ["empty"]
    return sanitised(" ".join(words[:PROMPT_WORDS]), spaces="keep")


def _has_prompt(facts: Facts, arguments: list[str]) -> str:
    prompt = facts.prompt.lower()
    choices = (argument.partition("|") for argument in arguments)
    return sanitised("".join(word.lower() if word.lower() in prompt else default for word, _, default in choices))


def _sampler_schedule(facts: Facts, arguments: list[str]) -> str:
    name = facts.sampler if facts.schedule in ("", "Automatic") else f"{facts.sampler} {facts.schedule}"
    return sanitised(name, spaces="keep")


_TOKENS: Mapping[str, _Write] = MappingProxyType({
    "seed": _fact("seed"),
    "seed_first": _first_of("seeds", 0),
    "seed_last": _first_of("seeds", -1),
    "steps": _fact("steps"),
    "cfg": lambda facts, arguments: f"{facts.guidance_scale:g}",
    "width": _fact("width"),
    "height": _fact("height"),
    "styles": lambda facts, arguments: sanitised(", ".join(facts.styles) or "None", spaces="keep"),
    "sampler": _fact("sampler"),
    "sampler_scheduler": _sampler_schedule,
    "scheduler": _fact("schedule"),
    "model_hash": _fact("model_hash"),
    "model_name": _fact("model_name"),
    "date": _date,
    "datetime": _datetime,
    "job_timestamp": _fact("job_timestamp"),
    "prompt_hash": _hash_of(lambda facts: facts.prompt),
    "negative_prompt_hash": _hash_of(lambda facts: facts.negative_prompt),
    "full_prompt_hash": _hash_of(lambda facts: f"{facts.prompt} {facts.negative_prompt}"),
    "prompt": lambda facts, arguments: sanitised(facts.prompt),
    "prompt_no_styles": lambda facts, arguments: sanitised(facts.prompt_no_styles, spaces="keep"),
    "prompt_spaces": lambda facts, arguments: sanitised(facts.prompt, spaces="keep"),
    "prompt_words": _words,
    "batch_number": lambda facts, arguments: str(facts.batch_number) if facts.batch_size > 1 else None,
    "batch_size": _fact("batch_size"),
    "generation_number": lambda facts, arguments: str(facts.generation_number) if facts.pictures > 1 else None,
    "hasprompt": _has_prompt,
    "clip_skip": _fact("clip_skip"),
    "denoising": lambda facts, arguments: f"{facts.denoising:g}" if facts.denoising else None,
    "user": _fact("user"),
    "vae_filename": _fact("vae"),
    "none": lambda facts, arguments: "",
    "basename": _fact("basename"),
    "image_hash": _image_hash,
})
