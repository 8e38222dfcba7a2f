"""Kinds of jobs that are not generations, and what each hands to the room that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from modules.app import plots
from modules.core import codec, difference, extras, inspection, lora, merge, plot
from modules.core.errors import InvalidRequest, Skipped
from modules.core.result import Outcome, Watch
from modules.core.task import Task
from modules.host.registry import Host
from modules.imaging.faces import FindRestorer, no_restorer
from modules.library.files import Library
from modules.library.inputs import Inputs

if TYPE_CHECKING:
    from modules.engine.engine import Engine
    from modules.imaging.resize import Upscaler
    from modules.runtime.memory import Models


@dataclass(frozen=True)
class Tools:
    """What the engine's process has for a task: its plugins, its files, its loaded models, upscalers by name.

    ``restorer`` finds a face restorer by its name.
    """

    library: Library
    host: Host
    engine: Engine
    models: Models
    upscalers: Mapping[str, Upscaler]
    restorer: FindRestorer = no_restorer


Perform = Callable[[Task, Tools, Watch, frozenset[int]], Outcome]
# Work on model files alone, which needs no engine.
OnFiles = Callable[[Task, Library, Watch], Outcome]


def _extras(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    from modules.upscaling.extras import Bench, perform

    asked = codec.decode(extras.Extras, task.values)
    bench = Bench(Inputs(tools.library.folders.inputs), tools.upscalers, tools.host.active(asked), task.settings,
                  tools.restorer)
    return perform(asked, bench, watch, done)


def _merge(task: Task, library: Library, watch: Watch) -> Outcome:
    from modules.merging.merge import perform

    return perform(codec.decode(merge.Recipe, task.values), library, watch)


def _inspect(task: Task, library: Library, watch: Watch) -> Outcome:
    from modules.merging.check import perform

    return perform(codec.decode(inspection.Check, task.values), library, watch)


def _merge_loras(task: Task, library: Library, watch: Watch) -> Outcome:
    from modules.merging.combine import perform

    return perform(codec.decode(lora.LoraMerge, task.values), library, watch)


def _extract_lora(task: Task, library: Library, watch: Watch) -> Outcome:
    from modules.merging.extract import perform

    return perform(codec.decode(lora.LoraExtraction, task.values), library, watch)


def _on_files(perform: OnFiles) -> Perform:
    """Return ``perform`` as a task's: of what makes one file, or one answer, to skip it is to end it."""
    def performed(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
        try:
            return perform(task, tools.library, watch)
        except Skipped:
            return Outcome(complete=False)
    return performed


def _compare(task: Task, library: Library, watch: Watch) -> Outcome:
    from modules.merging.difference import perform

    return perform(codec.decode(difference.Comparison, task.values), library, watch)


def _plot(task: Task, tools: Tools, watch: Watch, done: frozenset[int]) -> Outcome:
    return plots.perform(codec.decode(plot.Plot, task.values), watch, done)


# A room is imported, and torch with it, when its task is called: the page's process reads this file, too.
FILE_TASKS: Mapping[str, OnFiles] = MappingProxyType({
    merge.KIND: _merge, lora.MERGE: _merge_loras, lora.EXTRACT: _extract_lora, inspection.KIND: _inspect,
    difference.KIND: _compare})
TASKS: Mapping[str, Perform] = MappingProxyType({
    extras.KIND: _extras, plot.KIND: _plot,
    **{kind: _on_files(perform) for kind, perform in FILE_TASKS.items()}})


def find_task(name: str, tasks: Mapping[str, Perform] = TASKS) -> Perform:
    """Return what performs tasks of the kind ``name``; raises ``InvalidRequest``."""
    if name not in tasks:
        raise InvalidRequest(f"There are no jobs of the kind {name[:60]!r}.")
    return tasks[name]
