"""``webui.py merge``, ``merge-loras`` and ``extract-lora``: work on model files without a server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from modules.app import admission, workshop
from modules.app.command_line import Bar, project_root
from modules.app.failures import failure_of
from modules.app.messages import Advanced, Report, Run
from modules.app.saving import Saver, Storage
from modules.app.settings import SettingsStore
from modules.app.tasks import FILE_TASKS
from modules.app.watch import JobWatch
from modules.app.workbench import WorkerConfig
from modules.core import codec
from modules.core.result import Outcome
from modules.core.task import Task
from modules.host.registry import Host
from modules.library.files import Library
from modules.library.hashes import HashCache
from modules.library.outputs import Outputs

if TYPE_CHECKING:
    from modules.launcher.flags import Flags


def carry_out(work: workshop.Work, flags: Flags) -> int:
    """Do ``work`` in this process and print the name of the file that it made.

    Returns the exit status: 0, or 1 after an error, 2 where the request itself is at fault, 130 after Ctrl+C.
    """
    bar = Bar(sys.stderr, shown=not flags.disable_console_progressbars)
    try:
        outcome = perform(work, WorkerConfig(str(project_root()), flags.public()), bar)
    except KeyboardInterrupt:
        bar.end()
        sys.stderr.write("Interrupted; nothing was written.\n")
        return 130
    except Exception as error:  # noqa: BLE001 - the last place where it can become a readable line
        bar.end()
        failure = failure_of(error)
        sys.stderr.write(f"Error: {failure.message} {failure.hint}".strip() + "\n")
        return 2 if failure.status in (404, 409, 422) else 1
    bar.end()
    for warning in outcome.warnings:
        sys.stderr.write(f"{warning}\n")
    sys.stdout.write(f"{outcome.result['name']}\n")
    return 0


def perform(work: workshop.Work, config: WorkerConfig, bar: Bar) -> Outcome:
    """Check ``work`` as a submission is, and do it; raises ``DarkroomError`` types."""
    places = config.folders()
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    settings = SettingsStore(places.config, admission.listed_choice(library)).get()
    admitted = workshop.admit(work, admission.Desk(places, library, Host(()), settings.sd_model_checkpoint))
    task = Task(admitted.kind, codec.encode(admitted.work), admitted.name, admitted.summary, settings=settings)

    def report(message: Report) -> None:
        if isinstance(message, Advanced):
            bar.show(message.progress)

    run = Run("0", task, watching=True)
    saver = Saver(run, Storage(Outputs(places), library.hashes), report)
    return FILE_TASKS[task.task](task, library, JobWatch(run, saver, report, previews=False))
