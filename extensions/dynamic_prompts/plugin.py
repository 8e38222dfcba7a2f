"""Dynamic prompts: ``{a|b}``, ``{2$$a|b|c}`` and ``__wildcard__`` chosen anew for every picture by its seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from modules.plugin import Picture, Plan, Plugin, Request, param

from .template import Wildcards, combinations, expand

TEMPLATE, NEGATIVE_TEMPLATE = "Template", "Negative Template"


@dataclass(frozen=True)
class Options:
    """What the panel shows."""

    enabled: bool = param(True, "Enable dynamic prompts", help=(
        "{a|b} picks one, {2$$a|b|c} picks two; a name between two underscores on each side takes a line of "
        "wildcards/name.txt"))
    combinatorial: bool = param(False, "Combinatorial generation",
                                help="Make one job for every combination instead of choosing at random.")
    combinations: int = param(16, "Most combinations", minimum=1, maximum=1000, step=1)
    fixed_seed: bool = param(False, "Choose by the first seed for all pictures",
                             help="Every picture of the job gets the same text.")


class DynamicPrompts(Plugin):
    """Expands templates: at random by each picture's seed, or into all combinations as jobs of their own."""

    id = "dynamic_prompts"
    name = "Dynamic Prompts"
    description = "Random choices and wildcards in prompts; the same seed gives the same text."
    version = "1.0"
    Params = Options

    def expand(self, request: Request, params: Options) -> list[Request] | None:
        """Return a request for every combination of the positive prompt."""
        if not (params.enabled and params.combinatorial):
            return None
        prompts = combinations(request.prompt, self._wildcards(), params.combinations)
        if prompts == (request.prompt,):
            return None
        carried = {**request.parameters, TEMPLATE: request.prompt}
        return [dataclasses.replace(request, prompt=prompt, parameters=carried) for prompt in prompts]

    def on_plan(self, plan: Plan, params: Options) -> Plan | None:
        """Give each picture its own text; template and result are both in the infotext."""
        if not params.enabled:
            return None
        wildcards = self._wildcards()
        first = plan.pictures[0].seed
        return dataclasses.replace(plan, pictures=tuple(
            _resolve(picture, first if params.fixed_seed else picture.seed, wildcards, not params.combinatorial)
            for picture in plan.pictures
        ))

    def _wildcards(self) -> Wildcards:
        """Return the wildcard files as they are now; one edited between jobs counts at once."""
        return Wildcards(self.context.folders.get("wildcards", ()))


def _resolve(picture: Picture, seed: int, wildcards: Wildcards, positive: bool) -> Picture:
    """Expand a picture's prompts; the positive one only where it was not made into a combination before."""
    prompt = expand(picture.prompt, seed, wildcards) if positive else picture.prompt
    negative = expand(picture.negative_prompt, seed, wildcards)
    templates = {
        key: template
        for key, template, text in ((TEMPLATE, picture.prompt, prompt),
                                    (NEGATIVE_TEMPLATE, picture.negative_prompt, negative))
        if template != text
    }
    return dataclasses.replace(
        picture, prompt=prompt, negative_prompt=negative, parameters={**picture.parameters, **templates}
    )
