"""``webui.py txt2img`` and ``img2img``: the same pictures without a server."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modules.app import admission
from modules.app.failures import failure_of
from modules.app.messages import Advanced, Report, Run, Saved
from modules.app.saving import Saver, Storage
from modules.app.settings import SettingsStore
from modules.app.terminal import Bar, answered, project_root
from modules.app.watch import JobWatch
from modules.app.workbench import ENGINE, Workbench, WorkerConfig, open_host, open_workbench
from modules.app.worker import run_job
from modules.core.errors import DarkroomError, InvalidRequest
from modules.core.job import FAILED, FINISHED
from modules.core.plot import shown
from modules.core.request import Request
from modules.core.result import Part, Progress, SavedImage
from modules.core.settings import Settings
from modules.core.task import Task, gathered
from modules.library.files import Library
from modules.library.hashes import HashCache
from modules.library.inputs import Inputs
from modules.library.outputs import Outputs

if TYPE_CHECKING:
    from modules.launcher.commands import Txt2ImgArguments
    from modules.launcher.flags import Flags

FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}


def txt2img(args: Txt2ImgArguments, flags: Flags, *, engine: str = ENGINE) -> int:
    """Make the pictures that ``args`` ask for in this process, and print their paths.

    Returns the exit status: 0, or 1 after an error, 2 where the request itself is at fault, 130 after Ctrl+C.
    ``engine`` names what opens the engine, see ``WorkerConfig``.
    """
    config = WorkerConfig(str(project_root()), flags.public(), engine=engine)
    return answered(lambda bar: map(str, make(args, config, bar)), shown=not flags.disable_console_progressbars)


def make(args: Txt2ImgArguments, config: WorkerConfig, bar: Bar) -> list[Path]:
    """Return the paths of the pictures (grids, too) that were made; raises ``DarkroomError`` types."""
    places = config.folders()
    hashes = HashCache(places.cache / "hashes.sqlite3")
    library = Library(places, hashes)
    settings = SettingsStore(places.config, admission.listed_choice(library)).get()
    config = dataclasses.replace(config, disabled=settings.disabled_extensions)
    request = asked(args, settings, Inputs(places.inputs))
    out = Path(args.out).expanduser().absolute() if args.out else None
    if out is not None:
        request = for_destination(request, out)
    host = open_host(config)
    admitted = admission.admit(request, admission.Desk(places, library, host))
    host.close()
    bar.show(Progress(phase="Starting the engine"))
    bench = open_workbench(config, hashes)
    try:
        images = run_all(admitted.parts or (admitted.request,), bench, Storage(Outputs(places), hashes), bar)
    finally:
        bar.end()
        bench.close()
    if admitted.request.grid.wanted:
        images = [images[number] for number in shown(images, admitted.request.grid, True)]
    return deliver(images, out) if out is not None else [Path(image.path) for image in images]


def asked(args: Txt2ImgArguments, settings: Settings, inputs: Inputs) -> Request:
    """Return the request of ``args``, its pictures and mask stored; raises ``InvalidRequest`` naming a bad file."""
    images = tuple(stored(path, inputs) for path in args.images)
    return args.request(settings, images, {name: stored(path, inputs) for name, path in args.beside.items()})


def stored(path: str, inputs: Inputs) -> str:
    """Return the id of the picture at ``path``; raises ``InvalidRequest`` for what cannot be read."""
    try:
        return inputs.put(Path(path).expanduser().read_bytes()).id
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}.") from None
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.message}", error.hint) from None


def run_all(requests: Sequence[Request | Task], bench: Workbench, storage: Storage, bar: Bar) -> list[SavedImage]:
    """Run ``requests`` one after the other and return what was saved, warnings shown.

    Where the last is a task that gathers what the others have made, one of these may fail.
    """
    images: list[SavedImage] = []
    parts: list[Part] = []
    gathers = any(isinstance(one, Task) for one in requests)

    def report(message: Report) -> None:
        if isinstance(message, Advanced):
            bar.show(message.progress)
        elif isinstance(message, Saved):
            images.append(message.image)

    for number, request in enumerate(requests):
        before = len(images)
        run = Run(str(number), gathered(request, parts) if isinstance(request, Task) else request, watching=True)
        saver = Saver(run, storage, report)
        watch = JobWatch(run, saver, report, previews=False)
        try:
            state, warnings = FINISHED, run_job(run, bench, saver, watch).warnings
        except Exception as error:  # noqa: BLE001 - the cell fails, the others are made, as in the engine's process
            if not gathers or isinstance(request, Task):
                raise
            state, warnings = FAILED, (failure_of(error).message,)
        parts.append(Part(state, tuple(images[before:])))
        for warning in warnings:
            bar.end()
            sys.stderr.write(f"{warning}\n")
    return images


def for_destination(request: Request, out: Path) -> Request:
    """Return ``request`` so that its pictures can be moved to ``out``: in its format, and spooled until then."""
    suffix = out.suffix.lower()
    settings = request.settings
    if suffix and not out.is_dir():
        if suffix not in FORMATS:
            raise InvalidRequest(f"--out: {suffix} is no format for pictures.",
                                 f"Use {', '.join(FORMATS)} or a folder.")
        settings = dataclasses.replace(settings, samples_format=FORMATS[suffix])
    return dataclasses.replace(request, settings=settings, save_images=False, save_grid=False)


def deliver(images: Sequence[SavedImage], out: Path) -> list[Path]:
    """Move pictures to ``out``: into it if it is a folder, else under its name, numbered from the second on."""
    try:
        is_folder = out.is_dir() or not out.suffix
        (out if is_folder else out.parent).mkdir(parents=True, exist_ok=True)
        paths = []
        for number, image in enumerate(images):
            source = Path(image.path)
            path = free_name(out / source.name) if is_folder else numbered(out, number)
            shutil.move(source, path)
            paths.append(path)
        return paths
    except OSError as error:
        raise DarkroomError(f"{out} could not be written: {error.strerror or error}.",
                            f"The pictures are still in {Path(images[0].path).parent}.") from error


def numbered(path: Path, number: int) -> Path:
    """Return ``path`` itself for the first picture, ``name-2.png`` for the second, and so on."""
    return path if number == 0 else path.with_stem(f"{path.stem}-{number + 1}")


def free_name(path: Path) -> Path:
    """Return ``path``, or with a number at its end where it exists."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
