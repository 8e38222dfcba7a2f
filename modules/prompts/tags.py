"""``<name:argument:key=value>``: the tags through which a prompt calls plugins, such as ``<lora:file:0.8>``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAG = re.compile(r"<(\w+):([^>]+)>")


@dataclass(frozen=True)
class Tag:
    """A tag's name and its arguments as written; ``str(tag)`` is the tag's text again."""

    name: str
    arguments: tuple[str, ...]

    @property
    def positional(self) -> tuple[str, ...]:
        """The arguments without exactly one ``=``, in order."""
        return tuple(argument for argument in self.arguments if argument.count("=") != 1)

    @property
    def named(self) -> dict[str, str]:
        """The arguments of the form ``key=value``; of equal keys the last counts."""
        pairs = (argument.split("=") for argument in self.arguments if argument.count("=") == 1)
        return dict((key, value) for key, value in pairs)

    def __str__(self) -> str:
        return f"<{self.name}:{':'.join(self.arguments)}>"


def extract(prompt: str) -> tuple[str, tuple[Tag, ...]]:
    """Return ``prompt`` without its tags, and the tags in order.

    A tag is ``<``, a word, ``:``, one or more characters other than ``>``, and ``>``, as in AUTOMATIC1111's web UI.
    """
    end = prompt.rfind(">") + 1  # beyond it no tag can end, and searching there would take quadratic time
    tags = tuple(Tag(name, tuple(arguments.split(":"))) for name, arguments in _TAG.findall(prompt, 0, end))
    return _TAG.sub("", prompt[:end]) + prompt[end:], tags
