"""``webui.py merge``, ``merge-loras`` and ``extract-lora``: work on model files without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modules.app import admission, workshop
from modules.app.settings import SettingsStore
from modules.app.terminal import Bar, answered, done, project_root
from modules.app.workbench import WorkerConfig
from modules.core import codec
from modules.core.result import Outcome
from modules.core.task import Task
from modules.host.registry import Host
from modules.library.files import Library
from modules.library.hashes import HashCache

if TYPE_CHECKING:
    from modules.launcher.flags import Flags


def carry_out(work: workshop.Work, flags: Flags) -> int:
    """Do ``work`` in this process and print the name of the file that it made; return the exit status."""
    config = WorkerConfig(str(project_root()), flags.public())
    return answered(lambda bar: (perform(work, config, bar).result["name"],),
                    shown=not flags.disable_console_progressbars, interrupted="Interrupted; nothing was written.")


def perform(work: workshop.Work, config: WorkerConfig, bar: Bar) -> Outcome:
    """Check ``work`` as a submission is, and do it; raises ``DarkroomError`` types."""
    places = config.folders()
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    settings = SettingsStore(places.config, admission.listed_choice(library)).get()
    admitted = workshop.admit(work, admission.Desk(places, library, Host(()), settings.sd_model_checkpoint))
    task = Task(admitted.kind, codec.encode(admitted.work), admitted.name, admitted.summary, settings=settings)
    return done(task, library, bar)
