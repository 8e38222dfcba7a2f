"""The queue at work: feeds the engine one job after the other and tells everybody what happens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from modules.app.events import (
    ENDED_EVENT,
    IMAGE,
    PREVIEW,
    PROGRESS,
    QUEUE,
    QUEUED_EVENT,
    STARTED,
    Event,
    Hub,
    Subscription,
    present,
)
from modules.app.jobs import STOPPED, JobStore
from modules.app.messages import (
    Advanced,
    AskMemory,
    Begun,
    Engine,
    Failed,
    Finished,
    Interrupt,
    Look,
    Memory,
    Previewed,
    Ready,
    Report,
    Run,
    Saved,
    Skip,
    StopAfter,
)
from modules.app.running import Running
from modules.core.errors import DarkroomError, EngineDied, InvalidRequest, NotFound
from modules.core.job import ENDED, FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING, Job
from modules.core.result import Failure, Progress, SavedImage
from modules.core.task import Task, gathered

logger = logging.getLogger(__name__)

# How long after a question about progress somebody still counts as looking, in seconds.
ATTENTION = 10.0
MOST_LISTED = 10_000
INTERRUPT_ASKED, SKIP_ASKED, STOP_ASKED = "interrupt", "skip", "stop"


class JobQueue:
    """Jobs in, pictures out. Thread-safe; nothing here waits for the engine except ``wait`` and ``memory``."""

    def __init__(self, store: JobStore, engine: Engine, keep_finished: Callable[[], int],
                 on_image: Callable[[SavedImage, Job], None]) -> None:
        self.store = store
        self.hub = Hub()
        self._engine = engine
        self._keep_finished = keep_finished
        self._on_image = on_image
        self._lock = threading.RLock()
        self._memory_changed = threading.Condition()
        self._memory: Mapping[str, Any] | None = None
        self._running: Running | None = None
        # The parent of what runs, as of the last change of any row: it has the pictures of all parts.
        self._whole: Job | None = None
        self._preview: Previewed | None = None
        self._unsaved: dict[str, Job] = {}
        self._ready = False
        self._closed = False
        self._looking = False
        self._looked = 0.0
        self._paused = False

    def start(self) -> None:
        """Make sense of what an earlier process left, and start the engine; raises ``DarkroomError`` beside another."""
        self.store.claim()
        self.store.recover(time.time())
        self._paused = self.store.meta("paused") == "1"
        self._engine.start(self._report)

    def close(self) -> None:
        """Stop the engine and every listener; a running job stays a row and runs again at the next start."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._engine.close()
        self.hub.close()
        with self._lock:
            self.store.close()

    # What users ask for

    def add(self, job: Job, children: tuple[Job, ...] = ()) -> Job:
        """Queue ``job``; raises ``InvalidRequest`` where its id exists."""
        with self._lock:
            self._require_open()
            if self.store.exists(job.id):
                raise InvalidRequest(f"There is already a job {job.id!r}.", "Choose another id.")
            job = self.store.add(job, children)
            self._publish(QUEUED_EVENT, job)
            self._dispatch()
        return job

    def job(self, job_id: str) -> Job:
        """Return a snapshot of a job; raises ``NotFound``."""
        with self._lock:
            self._require_open()
            job = self.store.get(job_id)
            if job is None:
                raise NotFound(f"There is no job {job_id!r}.", "It may have been pruned from the history.")
            return self._live(job)

    def jobs(self, owner: str | None = None, states: tuple[str, ...] | None = None, limit: int = 100,
             offset: int = 0) -> list[Job]:
        """Return snapshots: the running job, the queue in order, then what ended, latest first."""
        with self._lock:
            self._require_open()
            limit, offset = max(0, min(limit, MOST_LISTED)), max(0, offset)
            return [self._live(job) for job in self.store.listed(owner, states, limit, offset)]

    def running(self) -> Job | None:
        """Return the job that runs, as users know it; asking counts as looking."""
        with self._lock:
            self.look()
            return self.job(self._running.top) if self._running else None

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Return the job once it has ended, or as it is after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.subscribe(job_id, looks=False) as subscription:
            while True:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                event = subscription.get(remaining)
                if event is None:
                    return self.job(job_id)
                if event.job is not None and event.job.state in ENDED:
                    return event.job

    def subscribe(self, job_id: str | None = None, *, looks: bool = True,
                  on_news: Callable[[], None] | None = None) -> Subscription:
        """Listen to one job, beginning with its present state, or to everything; raises ``NotFound``.

        For ``looks`` and ``on_news`` see ``Subscription``.
        """
        with self._lock:
            job = None if job_id is None else self.job(job_id)
            subscription = self.hub.subscribe(job_id, looks=looks, on_news=on_news)
            if job is not None:
                subscription.put(present(job))
            self._look()
        return subscription

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue, or interrupt it if it runs; one that has ended stays as it is."""
        with self._lock:
            job = self.job(job_id)
            top = job.parent or job.id
            self._whole = None
            if self.store.cancel_queued(top, time.time()):
                self._publish(ENDED_EVENT if self.store_state(top) in ENDED else QUEUED_EVENT, self.job(top))
                self._publish(QUEUE)
            if self._running is not None and self._running.top == top:
                self._ask(self._running, Interrupt, INTERRUPT_ASKED)
            return self.job(job_id)

    def interrupt(self) -> None:
        """Stop what runs, within one model call, with everything that belongs to it."""
        with self._lock:
            if self._running is not None:
                self.cancel(self._running.top)

    def skip(self, job_id: str | None = None) -> None:
        """End the running batch early and go on with the next; see ``_meant`` for ``job_id``."""
        with self._lock:
            running = self._meant(job_id)
            if running is not None:
                self._ask(running, Skip, SKIP_ASKED)

    def stop_after_current(self, job_id: str | None = None) -> None:
        """Stop what runs once its batch is finished; see ``_meant`` for ``job_id``."""
        with self._lock:
            running = self._meant(job_id)
            if running is not None:
                self._whole = None
                self.store.cancel_queued(running.top, time.time())
                self._ask(running, StopAfter, STOP_ASKED)

    def asked(self) -> frozenset[str]:
        """Return what the running job was asked to do and has not done yet: ``interrupt``, ``skip``, ``stop``."""
        with self._lock:
            return self._running.asked if self._running else frozenset()

    def _meant(self, job_id: str | None) -> Running | None:
        """Return what runs; with ``job_id`` it must be that, or ``InvalidRequest`` is raised."""
        if job_id is not None and (self._running is None or job_id not in (self._running.top, self._running.job.id)):
            raise InvalidRequest(f"The job {self.job(job_id).id!r} does not run.", "It may be queued, or have ended.")
        return self._running

    def _ask(self, running: Running, command: type[Interrupt] | type[Skip] | type[StopAfter], what: str) -> None:
        self._running = replace(running, asked=running.asked | {what})
        if command is Interrupt:
            self._remember_stopped(running.top)
        self._engine.send(command(running.job.id))

    def _remember_stopped(self, job_id: str) -> None:
        try:
            self.store.set_meta(STOPPED, job_id)
        except DarkroomError:
            logger.exception("A restart would run the job %s again.", job_id)

    def move(self, job_id: str, before: str | None = None) -> None:
        """Put a queued job before another, or last; raises ``InvalidRequest`` where one is not queued."""
        with self._lock:
            self._require_open()
            if not self.store.move(job_id, before):
                raise InvalidRequest("Only queued jobs can be reordered.", "One of them has already begun or ended.")
            self._publish(QUEUE)

    def forget(self, job_id: str) -> None:
        """Remove an ended job from the history; its pictures stay. Raises ``InvalidRequest`` while it has not ended."""
        with self._lock:
            self.job(job_id)
            if not self.store.delete(job_id):
                raise InvalidRequest("Only an ended job can be removed from the history.", "Cancel it first.")
            self._publish(QUEUE)

    @property
    def paused(self) -> bool:
        """Whether queued jobs wait although the engine is free."""
        return self._paused

    def pause(self, paused: bool = True) -> None:
        """Let queued jobs wait (what runs goes on), or go on; remembered over a restart."""
        with self._lock:
            self._require_open()
            self._paused = paused
            self.store.set_meta("paused", "1" if paused else "0")
            self._publish(QUEUE)
            self._dispatch()

    def preview(self, job_id: str) -> tuple[int, bytes] | None:
        """Return the number and the JPEG of the running job's latest preview, or None; asking counts as looking."""
        with self._lock:
            self.look()
            running, preview = self._running, self._preview
            if running is None or preview is None or job_id not in (running.top, running.job.id):
                return None
            return preview.number, preview.jpeg

    def look(self) -> None:
        """Note that somebody asks for progress now and then without a subscription."""
        with self._lock:
            self._looked = time.monotonic()
            self._look()

    def memory(self, timeout: float = 2.0) -> Mapping[str, Any]:
        """Return the engine's memory in bytes, empty where it does not answer in time."""
        with self._memory_changed:
            self._memory = None
            self._engine.send(AskMemory())
            self._memory_changed.wait_for(lambda: self._memory is not None, timeout)
            return self._memory or {}

    # What the engine tells

    def _report(self, report: Report) -> None:
        if isinstance(report, Memory):
            with self._memory_changed:
                self._memory = report.values
                self._memory_changed.notify_all()
            return
        with self._lock:
            if self._closed:
                return
            if isinstance(report, Ready):
                self._on_ready()
            elif isinstance(report, Failed) and report.died:
                self._on_death(report.failure)
            elif self._running is not None and report.job_id == self._running.job.id:
                self._on_running(self._running, report)

    def _on_ready(self) -> None:
        self._ready = True
        self._publish(QUEUE)
        self._dispatch()

    def _on_running(self, running: Running, report: Begun | Advanced | Previewed | Saved | Finished | Failed) -> None:
        if isinstance(report, Begun):
            self._running = replace(running, begun=True)
        elif isinstance(report, Advanced):
            next_batch = report.progress.picture != running.progress.picture
            self._running = replace(running, progress=report.progress,
                                    asked=running.asked - {SKIP_ASKED} if next_batch else running.asked)
            self._publish(PROGRESS, self._top_job(self._running))
            self._look()
        elif isinstance(report, Previewed):
            self._preview = report
            self._running = replace(running, progress=replace(running.progress, preview=report.number))
            self._publish(PREVIEW, self._top_job(self._running))
        elif isinstance(report, Saved):
            self._on_saved(running, report.image)
        elif isinstance(report, Finished):
            state = INTERRUPTED if report.interrupted else FINISHED
            self._end(replace(running.job, state=state, warnings=running.job.warnings + report.warnings,
                              result=report.result))
        else:
            self._end(replace(running.job, state=FAILED, failure=report.failure))

    def _on_death(self, failure: Failure) -> None:
        """What ran has failed; what is queued, or was handed over too late, waits for the new process."""
        self._ready = False
        if self._running is not None and not self._running.begun:
            job, self._running = replace(self._running.job, state=QUEUED, started=0.0), None
            self._save(job)
            self._publish(QUEUED_EVENT, self.job(job.parent or job.id))
        elif self._running is not None:
            self._end(replace(self._running.job, state=FAILED, failure=failure))
        else:
            self._fail_waiting(failure)

    def _fail_waiting(self, failure: Failure) -> None:
        """Fail jobs whose callers wait for an engine that does not start; the others wait for it."""
        for job in self.store.waited_for():
            if self.store.cancel_queued(job.id, time.time()):
                self._save(replace(job, state=FAILED, ended=time.time(), failure=failure))
                self._publish(ENDED_EVENT, self.job(job.id))
        self._publish(QUEUE)

    def _on_saved(self, running: Running, image: SavedImage) -> None:
        job = replace(running.job, images=(*running.job.images, image))
        self._running = replace(running, job=job)
        self._save(job)
        self._publish(IMAGE, self._top_job(self._running))
        try:
            self._on_image(image, job)
        except DarkroomError:
            logger.exception("The gallery did not take %s.", image.path)

    def _end(self, job: Job) -> None:
        job = replace(job, ended=time.time())
        if self._running is not None and INTERRUPT_ASKED in self._running.asked:
            self._remember_stopped("")  # it has; another job may have its id later
        self._running = self._preview = None
        self._save(job)
        top = self.job(job.parent or job.id)
        self._publish(ENDED_EVENT if top.state in ENDED else PROGRESS, top)
        self._prune()
        self._dispatch()

    # Between the two

    def _dispatch(self) -> None:
        """Hand the next job to the engine if it is free; called whenever that may have changed."""
        if self._closed or self._paused or self._running is not None or not self._ready:
            return
        job = self.store.next_queued()
        if job is None:
            return
        self._ready = False
        job = replace(job, state=RUNNING, started=job.started or time.time())
        self._save(job)
        top = self.store.get(job.parent) if job.parent else job
        self._running = Running(job, self.store.share(job.parent or job.id), top.started if top else job.started,
                                Progress(pictures=job.request.pictures))
        self._looking = self._watched(self._running)
        self._publish(STARTED, self._top_job(self._running))
        request = job.request
        if isinstance(request, Task) and request.gathers:
            request = gathered(request, self.store.results(job.parent))
        self._engine.send(Run(job.id, request, job.images, self._looking))

    def _save(self, job: Job) -> None:
        """Write a row; where the disk refuses, keep it in mind and try again with the next."""
        self._unsaved[job.id] = job
        self._whole = None
        try:
            for one in tuple(self._unsaved.values()):
                self.store.save(one)
                del self._unsaved[one.id]
        except DarkroomError:
            logger.exception("The job %s could not be written to the queue's file.", job.id)

    def _prune(self) -> None:
        try:
            self.store.prune(self._keep_finished())
        except DarkroomError:
            logger.exception("The history could not be pruned.")

    def store_state(self, job_id: str) -> str:
        """Return the state a job's row has."""
        job = self.store.get(job_id)
        return job.state if job else ""

    def _live(self, job: Job) -> Job:
        """Return ``job`` with what its row does not hold (yet)."""
        job = self._unsaved.get(job.id, job)
        running = self._running
        if running is None or job.id not in (running.top, running.job.id):
            return job
        return replace(job, progress=running.progress if job.id == running.job.id else running.whole(time.time()))

    def _top_job(self, running: Running) -> Job:
        if not running.job.parent:
            return replace(running.job, progress=running.progress)
        if self._whole is None or self._whole.id != running.top:
            self._whole = self.job(running.top)
        return replace(self._whole, progress=running.whole(time.time()))

    def _look(self) -> None:
        """Tell the engine when somebody begins or ceases to look."""
        running = self._running
        if running is None:
            return
        looking = self._watched(running)
        if looking != self._looking:
            self._looking = looking
            self._engine.send(Look(looking))

    def _watched(self, running: Running) -> bool:
        return self.hub.watched(running.top) or time.monotonic() - self._looked < ATTENTION

    def _publish(self, kind: str, job: Job | None = None) -> None:
        self.hub.publish(Event(kind, job.id if job else "", job))

    def _require_open(self) -> None:
        if self._closed:
            raise EngineDied("The server is shutting down.", "Try again once it is back.")
