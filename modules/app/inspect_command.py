"""``webui.py inspect``: what a model file is and holds, on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from modules.app import inspection
from modules.app.terminal import Bar, answered, done, project_root
from modules.app.workbench import WorkerConfig
from modules.core import codec
from modules.core.errors import NotFound
from modules.core.inspection import KIND, Check
from modules.core.task import Task
from modules.families.inspection import LABELS
from modules.library.files import CHECKPOINT, Library, ModelFile
from modules.library.hashes import HashCache

if TYPE_CHECKING:
    from modules.launcher.commands import InspectArguments
    from modules.launcher.flags import Flags


def inspect(args: InspectArguments, flags: Flags) -> int:
    """Print what ``args`` ask for; return the exit status."""
    places = WorkerConfig(str(project_root()), flags.public()).folders()
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    return answered(lambda bar: told(args, library, bar), shown=not flags.disable_console_progressbars)


def told(args: InspectArguments, library: Library, bar: Bar) -> Iterator[str]:
    """Return what ``args`` ask for as texts."""
    file = find(library, args.kind, args.name)
    values = checked(library, file, bar) if args.check else {}
    found = inspection.look(library, file.kind, file.name)
    yield json.dumps(inspection.view(found) | values, indent=2) if args.as_json else inspection.text(found)
    if values and not args.as_json:
        yield inspection.values_text(values["values"])


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
    return {"values": done(Task(KIND, codec.encode(Check(file.kind, file.name))), library, bar).result["values"]}
