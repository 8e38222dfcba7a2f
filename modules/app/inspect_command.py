"""``webui.py inspect``: what a model file is and holds, on the terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from modules.app import inspection
from modules.app.command_line import Bar, project_root
from modules.app.failures import failure_of
from modules.app.messages import Advanced, Report, Run
from modules.app.saving import Saver, Storage
from modules.app.watch import JobWatch
from modules.app.workbench import WorkerConfig
from modules.core import codec
from modules.core.errors import NotFound
from modules.core.inspection import KIND, Check
from modules.core.task import Task
from modules.families.inspection import LABELS
from modules.library.files import CHECKPOINT, Library, ModelFile
from modules.library.hashes import HashCache
from modules.library.outputs import Outputs

if TYPE_CHECKING:
    from modules.launcher.commands import InspectArguments
    from modules.launcher.flags import Flags


def inspect(args: InspectArguments, flags: Flags) -> int:
    """Print what ``args`` ask for; return the exit status: 0, 1 after an error, 2 where the request is at fault."""
    bar = Bar(sys.stderr, shown=not flags.disable_console_progressbars)
    places = WorkerConfig(str(project_root()), flags.public()).folders()
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    try:
        file = find(library, args.kind, args.name)
        values = checked(library, file, bar) if args.check else {}
        found = inspection.look(library, file.kind, file.name)
        lines = json.dumps(inspection.view(found) | values, indent=2) if args.as_json else inspection.text(found)
        sys.stdout.write(f"{lines}\n")
        if values and not args.as_json:
            sys.stdout.write(f"{inspection.values_text(values['values'])}\n")
        return 0
    except Exception as error:  # noqa: BLE001 - the last place where it can become a readable line
        failure = failure_of(error)
        sys.stderr.write(f"Error: {failure.message} {failure.hint}".strip() + "\n")
        return 2 if failure.status in (404, 422) else 1
    finally:
        bar.end()


def find(library: Library, kind: str, name: str) -> ModelFile:
    """Return the model called ``name``: of ``kind``, or for an empty one of the first kind that has it.

    Raises ``InvalidRequest`` for an unknown kind, ``NotFound`` with near names.
    """
    if kind:
        return library.find(kind, name)
    for each in LABELS:
        try:
            return library.find(each, name)
        except NotFound:
            continue
    return library.find(CHECKPOINT, name)


def checked(library: Library, file: ModelFile, bar: Bar) -> dict[str, Any]:
    """Return as ``values`` what reading all of ``file`` shows; hashes are remembered on the way."""
    from modules.merging.check import perform

    def report(message: Report) -> None:
        if isinstance(message, Advanced):
            bar.show(message.progress)

    check = Check(file.kind, file.name)
    run = Run("0", Task(KIND, codec.encode(check)), watching=True)
    saver = Saver(run, Storage(Outputs(library.folders), library.hashes), report)
    outcome = perform(check, library, JobWatch(run, saver, report, previews=False))
    return {"values": outcome.result["values"]}
