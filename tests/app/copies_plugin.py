"""A plugin that makes several requests of one."""

from __future__ import annotations

import dataclasses

from modules.plugin import Plugin, Request, param


@dataclasses.dataclass(frozen=True)
class Params:
    copies: int = param(0, "Copies", minimum=0, maximum=100_000)


class Copies(Plugin):
    """``copies`` requests with seeds of their own and one step more each; none by default."""

    id = "copies"
    Params = Params

    def expand(self, request: Request, params: Params) -> list[Request]:
        return [dataclasses.replace(request, seed=-1, steps=n + 1) for n in range(params.copies)]
