"""What a plugin answers over HTTP, declared without a web framework."""

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
