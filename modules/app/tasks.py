"""Kinds of jobs that are not generations, and what each hands to the room that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from modules.app import plots
from modules.core import codec, difference, extras, inspection, merge, plot
from modules.core.errors import InvalidRequest
from modules.core.result import Outcome, Watch
from modules.core.task import Task
from modules.host.registry import Host
from modules.library.files import Library
from modules.library.inputs import Inputs

if TYPE_CHECKING:
    from modules.engine.engine import Engine
    from modules.imaging.resize import Upscaler
    from modules.runtime.memory import Models


@dataclass(frozen=True)
class Tools:
    """What the engine's process has for a task: its plugins, its files, its loaded models, upscalers by name."""

    library: Library
    host: Host
    engine: Engine
    models: Models
    upscalers: Mapping[str, Upscaler]


Perform = Callable[[Task, Tools, Watch, frozenset[int]], Outcome]


def _extras(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    from modules.upscaling.extras import Bench, perform

    asked = codec.decode(extras.Extras, task.values)
    bench = Bench(Inputs(tools.library.folders.inputs), tools.upscalers, tools.host.active(asked), task.settings)
    return perform(asked, bench, watch, done)


def _merge(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    from modules.merging.merge import perform

    return perform(codec.decode(merge.Recipe, task.values), tools.library, watch)


def _inspect(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    from modules.merging.check import perform

    return perform(codec.decode(inspection.Check, task.values), tools.library, watch)


def _compare(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    from modules.merging.difference import perform

    return perform(codec.decode(difference.Comparison, task.values), tools.library, watch)


def _plot(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    return plots.perform(codec.decode(plot.Plot, task.values), watch, done)


# A room is imported, and torch with it, when its task is called: the page's process reads this file, too.
TASKS: Mapping[str, Perform] = MappingProxyType({
    extras.KIND: _extras, merge.KIND: _merge, inspection.KIND: _inspect, difference.KIND: _compare, plot.KIND: _plot})


def find_task(name: str, tasks: Mapping[str, Perform] = TASKS) -> Perform:
    """Return what performs tasks of the kind ``name``; raises ``InvalidRequest``."""
    if name not in tasks:
        raise InvalidRequest(f"There are no jobs of the kind {name[:60]!r}.")
    return tasks[name]
