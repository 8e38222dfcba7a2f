"""The one object behind the page, both APIs, the command line and the tests."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.app import admission, axes, workshop
from modules.app.engine_client import EngineClient
from modules.app.events import Subscription
from modules.app.forms import FormStore
from modules.app.gallery import Gallery
from modules.app.jobs import JobStore
from modules.app.messages import Engine, EngineStatus, Unload
from modules.app.networks import Networks
from modules.app.queue import JobQueue
from modules.app.settings import SettingsStore
from modules.app.styles import StyleBook
from modules.app.tasks import find_task
from modules.app.workbench import WorkerConfig, open_host
from modules.app.workshop import Work
from modules.core import codec, difference
from modules.core.axes import Axis
from modules.core.difference import Comparison
from modules.core.errors import DarkroomError
from modules.core.extras import KIND, Extras
from modules.core.inspection import KIND as INSPECT
from modules.core.inspection import Check
from modules.core.inspection import check as check_asked
from modules.core.job import Job
from modules.core.request import Request
from modules.core.task import Task, check_task
from modules.host.registry import Host
from modules.imaging.resize import RESAMPLERS
from modules.library.files import Folders, Library, ModelFile, folders
from modules.library.hashes import HashCache
from modules.library.images import read_image_info
from modules.library.inputs import Inputs
from modules.library.upscalers import offered

if TYPE_CHECKING:
    from modules.launcher.flags import Flags


logger = logging.getLogger(__name__)
DAY = 86_400  # seconds


@dataclass(frozen=True, eq=False)
class App:
    """The program without a face. Its parts are public: ``app.library.checkpoints()``, ``app.gallery.search(…)``.

    Every method may be called from any thread and raises ``DarkroomError`` types only.
    """

    folders: Folders
    library: Library
    settings: SettingsStore
    queue: JobQueue
    gallery: Gallery
    networks: Networks
    forms: FormStore
    styles: StyleBook
    host: Host
    engine: Engine
    flags: Flags

    def start(self) -> None:
        """Take up what an earlier process left and start the engine in the background; returns at once."""
        self.queue.start()
        self.gallery.rescan()
        threading.Thread(target=self._forget_inputs, name="inputs", daemon=True).start()

    def _desk(self) -> admission.Desk:
        """Return what one submission is checked against."""
        return admission.Desk(self.folders, self.library, self.host, self.settings.get().sd_model_checkpoint)

    def _forget_inputs(self) -> None:
        """Delete pictures that were begun from long ago, unless a form or a job names them."""
        days = self.settings.get().input_retention_days
        try:
            if days:
                kept = self.forms.mentioned() | self.queue.store.mentioned()
                Inputs(self.folders.inputs).prune(kept, days * DAY)
        except (DarkroomError, OSError) as error:
            logger.warning("Old pictures that were begun from are kept: %s", error)

    def close(self) -> None:
        """Stop everything. A running job stays in the queue and runs again at the next start."""
        self.queue.close()
        self.gallery.close()
        self.networks.close()
        self.forms.close()
        self.host.close()

    def submit(self, request: Request, *, owner: str = "", blocking: bool = False, origin: str = "page",
               job_id: str | None = None, warnings: Sequence[str] = ()) -> Job:
        """Check ``request``, fix its seeds, write its job and return that; nothing has run yet.

        Names of model, VAE, sampler and schedule are resolved (old combined sampler names too). ``blocking`` jobs
        are cancelled when the program restarts. ``warnings`` are kept with the job. Raises ``InvalidRequest``,
        ``NoModel``, ``NotFound`` (with near matches), ``PluginFailed`` or ``DiskFull``.
        """
        admission.check_id(job_id)
        admitted = admission.admit(request, self._desk())
        template = Job(
            id=job_id or admission.new_id(), owner=owner, state="queued", request=admitted.request, blocking=blocking,
            created=time.time(), warnings=(*warnings, *admitted.warnings), origin=origin,
        )
        return self.queue.add(template, admission.children(template, admitted.parts))

    def submit_batch(self, requests: Sequence[Request], *, owner: str = "", origin: str = "page",
                     warnings: Sequence[str] = ()) -> Job:
        """Queue several requests as the parts of one job; nothing is queued where one of them is refused.

        Raises what ``submit`` raises, and ``InvalidRequest`` for none or too many pictures.
        """
        admitted = admission.admit_all(requests, self._desk())
        template = Job(id=admission.new_id(), owner=owner, state="queued", request=admitted.request,
                       created=time.time(), warnings=(*warnings, *admitted.warnings), origin=origin)
        return self.queue.add(template, admission.children(template, admitted.parts))

    def submit_task(self, task: Task, *, owner: str = "", blocking: bool = False, origin: str = "page",
                    job_id: str | None = None, warnings: Sequence[str] = ()) -> Job:
        """Queue work that is not a generation, whose values were checked; otherwise as ``submit``."""
        admission.check_id(job_id)
        find_task(check_task(task).task)
        return self.queue.add(Job(
            id=job_id or admission.new_id(), owner=owner, state="queued", request=task, blocking=blocking,
            created=time.time(), warnings=tuple(warnings), origin=origin))

    def submit_extras(self, extras: Extras, *, owner: str = "", blocking: bool = False, origin: str = "page",
                      warnings: Sequence[str] = (), folder: str = "", shown: bool = True) -> Job:
        """Queue pictures to enlarge; those that a page asks for are saved. Raises ``InvalidRequest``, ``NotFound``.

        ``folder`` and ``shown`` are as in ``Task``.
        """
        admitted, skipped = admission.admit_extras(extras, self._desk())
        count, settings = len(admitted.sources), self.settings.get()
        if folder:  # who names one wants them there
            settings = dataclasses.replace(settings, samples_save=True)
        what = ", ".join((*admitted.upscalers[:1], *admitted.restorers, f"{count} picture{'s'[:count > 1]}"))
        task = Task(KIND, codec.encode(admitted), "Extras", what, count, settings, save_images=not blocking,
                    folder=folder, shown=shown)
        return self.submit_task(task, owner=owner, blocking=blocking, origin=origin, warnings=(*warnings, *skipped))

    def submit_work(self, work: Work, *, owner: str = "", blocking: bool = False, origin: str = "page") -> Job:
        """Queue a merge of checkpoints or of LoRAs, or a LoRA's extraction. Raises ``InvalidRequest``, ``NotFound``."""
        admitted = workshop.admit(work, self._desk())
        task = Task(admitted.kind, codec.encode(admitted.work), admitted.name, admitted.summary,
                    settings=self.settings.get())
        return self.submit_task(task, owner=owner, blocking=blocking, origin=origin)

    def submit_check(self, check: Check, *, owner: str = "", origin: str = "page") -> Job:
        """Queue the reading of a whole model file. Raises ``InvalidRequest``, ``NotFound``."""
        file = self.library.find(check_asked(check).kind, check.name)
        task = Task(INSPECT, codec.encode(dataclasses.replace(check, name=file.name)), file.name,
                    " and ".join(name for name in ("hashes", "values") if getattr(check, name)),
                    settings=self.settings.get())
        return self.submit_task(task, owner=owner, origin=origin)

    def submit_comparison(self, asked: Comparison, *, owner: str = "", origin: str = "page") -> Job:
        """Queue a comparison of two checkpoints. Raises ``InvalidRequest``, ``NotFound``."""
        difference.check(asked)
        a, b = (self.library.find_checkpoint(name).name for name in (asked.model_a, asked.model_b))
        task = Task(difference.KIND, codec.encode(Comparison(a, b)), f"{b} against {a}", "block by block",
                    settings=self.settings.get())
        return self.submit_task(task, owner=owner, origin=origin)

    def upscalers(self) -> tuple[str, ...]:
        """Return the names of all upscalers of pixels: resampling, model files, those of extensions."""
        return (*RESAMPLERS, *self._desk().upscalers)

    def offered_upscalers(self) -> tuple[str, ...]:
        """Return those of ``upscalers`` that the settings show."""
        return offered(self.upscalers(), self.settings.get())

    def axes(self, tab: str) -> tuple[Axis, ...]:
        """Return the axes of the X/Y/Z plot in ``tab``, those of extensions included."""
        return axes.axes(tab, self.host)

    def choices(self, axis: Axis) -> tuple[str, ...]:
        """Return the values that ``axis`` can have now, empty where any may be given."""
        return axes.choices(axis, self)

    def job(self, job_id: str) -> Job:
        """Return a snapshot of a job; raises ``NotFound``."""
        return self.queue.job(job_id)

    def jobs(self, owner: str | None = None, states: Sequence[str] | None = None, limit: int = 100,
             offset: int = 0) -> list[Job]:
        """Return snapshots: the running job, then the queue in order, then what has ended, latest first."""
        return self.queue.jobs(owner, None if states is None else tuple(states), limit, offset)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Return the job once it has ended, or as it is after ``timeout`` seconds; raises ``NotFound``."""
        return self.queue.wait(job_id, timeout)

    def cancel(self, job_id: str) -> Job:
        """Take a queued job out of the queue, or interrupt it if it runs; raises ``NotFound``."""
        return self.queue.cancel(job_id)

    def interrupt(self) -> None:
        """Stop what runs, within one model call."""
        self.queue.interrupt()

    def skip(self, job_id: str | None = None) -> None:
        """End the running batch early and go on with the next; raises ``InvalidRequest`` if not ``job_id`` runs."""
        self.queue.skip(job_id)

    def stop_after_current(self, job_id: str | None = None) -> None:
        """Stop what runs once its batch is finished; raises ``InvalidRequest`` if not ``job_id`` runs."""
        self.queue.stop_after_current(job_id)

    def asked(self) -> frozenset[str]:
        """Return what the running job was asked to do: ``interrupt``, ``skip``, ``stop``."""
        return self.queue.asked()

    def move(self, job_id: str, before: str | None = None) -> None:
        """Put a queued job before another, or last; raises ``InvalidRequest`` where one is not queued."""
        self.queue.move(job_id, before)

    def forget(self, job_id: str) -> None:
        """Remove an ended job from the history; its pictures stay on disk."""
        self.queue.forget(job_id)

    def pause(self) -> None:
        """Begin no further job; remembered over a restart."""
        self.queue.pause(True)

    def resume(self) -> None:
        """Begin queued jobs again."""
        self.queue.pause(False)

    @property
    def paused(self) -> bool:
        """Whether queued jobs wait although the engine is free."""
        return self.queue.paused

    def running(self) -> Job | None:
        """Return the job that runs, with its progress, or None; asking counts as looking."""
        return self.queue.running()

    def subscribe(self, job_id: str | None = None, *, looks: bool = True,
                  on_news: Callable[[], None] | None = None) -> Subscription:
        """Listen to one job, beginning with its present state, or to everything; raises ``NotFound``.

        Without ``looks`` neither progress nor previews are made for it; ``on_news`` is called from any thread when
        there is something to get.
        """
        return self.queue.subscribe(job_id, looks=looks, on_news=on_news)

    def preview(self, job_id: str) -> tuple[int, bytes] | None:
        """Return number and JPEG bytes of the running job's latest preview; asking counts as looking."""
        return self.queue.preview(job_id)

    def look(self) -> None:
        """Note that somebody polls for progress; without this, ``running`` or a subscription none is reported."""
        self.queue.look()

    def engine_status(self) -> EngineStatus:
        """Return how the engine does."""
        return self.engine.status()

    def memory(self) -> Mapping[str, Any]:
        """Return memory in bytes: ``ram`` and ``cuda``; the machine's alone where the engine does not answer."""
        return self.queue.memory() or admission.machine_memory()

    def unload(self) -> None:
        """Free all loaded models once nothing runs."""
        self.engine.send(Unload())

    def refresh(self) -> tuple[ModelFile, ...]:
        """Return the checkpoints that are on disk now, and look for new pictures in the background."""
        self.gallery.rescan()
        return self.library.checkpoints()


def create(flags: Flags) -> App:
    """Return the real App for ``flags``; nothing runs before ``start``."""
    root = Path(__file__).resolve().parents[2]
    places = folders(root, flags.folders())
    library = Library(places, HashCache(places.cache / "hashes.sqlite3"))
    # Which extensions there are the settings say, so that these know their samplers only once somebody asks.
    listed = admission.listed_choice(library, lambda: host.samplers())
    settings = SettingsStore(places.config, listed, frozen=flags.freeze_settings)
    config = WorkerConfig(str(root), flags.public(), settings.get().disabled_extensions,
                          log=str(places.data_dir / "logs" / "engine.log"))
    host = open_host(config)
    return assemble(library, settings, host, EngineClient(config), flags)


def assemble(library: Library, settings: SettingsStore, host: Host, engine: Engine, flags: Flags) -> App:
    """Return the App around ``engine``, with its files in the library's data folder."""
    places = library.folders
    data = places.data_dir / "data"
    gallery = Gallery(data / "gallery.sqlite3", (places.outputs,), read_image_info)
    queue = JobQueue(
        JobStore(data / "darkroom.sqlite3"), engine, lambda: settings.get().queue_keep_finished,
        lambda image, job: gallery.add(image, job.parent or job.id),
    )
    networks = Networks(data / "networks.sqlite3", places)
    forms = FormStore(data / "forms.sqlite3")
    return App(places, library, settings, queue, gallery, networks, forms, StyleBook(places.styles), host, engine,
               flags)
