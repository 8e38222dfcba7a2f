"""What a plugin adds to the page and answers over HTTP, declared without a web framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modules.families.base import Variant


@dataclass(frozen=True)
class Asked:
    """A request to a route: the address's query, the JSON that was sent (None without), the chosen checkpoint."""

    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    variant: Variant | None = None


@dataclass(frozen=True)
class Route:
    """An address beginning with ``/`` and what answers it, in the page's process; the answer becomes JSON."""

    path: str
    answer: Callable[[Asked], Any]
    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"


@dataclass(frozen=True)
class PageTab:
    """A tab of the page: its label, its HTML, and a script, a JavaScript module that runs once the page is there.

    The script asks the plugin's routes for what changes; addresses in it are relative to the page's.
    """

    label: str
    html: str
    script: str = ""
