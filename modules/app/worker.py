"""The engine's process: takes commands over a pipe, runs one job after the other, tells what happens."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from modules.app.failures import failure_of
from modules.app.messages import (
    AskMemory,
    Begun,
    Close,
    Command,
    Failed,
    Finished,
    Interrupt,
    Look,
    Memory,
    Ready,
    Report,
    Run,
    Skip,
    StopAfter,
    Unload,
    pack,
    unpack,
)
from modules.app.saving import Saver, Storage, already_made
from modules.app.watch import JobWatch
from modules.app.workbench import Workbench, WorkerConfig, open_workbench
from modules.core.errors import DarkroomError, Interrupted
from modules.core.request import Request
from modules.core.result import Outcome
from modules.library.hashes import HashCache
from modules.library.outputs import Outputs, expire_spool, remove_partial

logger = logging.getLogger(__name__)

# How long the process may take to end once its parent is gone or asks for it, in seconds.
GRACE = 3.0


def main(connection: Connection, config: WorkerConfig) -> None:
    """Run until the parent closes the pipe or asks for the end; the entry function of the spawned process."""
    # Ctrl+C reaches the whole terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _log_to(config.log, str(config.flags.get("loglevel", "INFO")))
    worker = Worker(config, _Sender(connection))
    threading.Thread(target=worker.listen, args=(connection,), name="commands", daemon=True).start()
    worker.work()
    logging.shutdown()
    os._exit(0)


class _Sender:
    """Writes messages to the pipe, from any thread, until nobody reads it any more."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def __call__(self, report: Report) -> None:
        try:
            with self._lock:
                self._connection.send_bytes(pack(report))
        except OSError:
            logger.info("Nobody reads what happens any more.")


class Worker:
    """Holds the workbench; ``listen`` and ``work`` run in a thread each."""

    def __init__(self, config: WorkerConfig, report: Callable[[Report], None]) -> None:
        self._config = config
        self._report = report
        self._inbox: queue.SimpleQueue[Run | Unload | Close] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._bench: Workbench | None = None
        self._watch: JobWatch | None = None
        self._early: list[Interrupt | Skip | StopAfter | Look] = []
        self._watch_lock = threading.Lock()

    def listen(self, connection: Connection) -> None:
        """Take commands until the pipe ends."""
        try:
            while not self._closing.is_set():
                self.take(unpack(connection.recv_bytes()))
        except (EOFError, OSError):
            self.take(Close())
        except DarkroomError:
            logger.exception("The parent cannot be understood.")
            self.take(Close())

    def take(self, command: Command) -> None:
        """Obey one command; those for a job that has not begun yet wait for it."""
        if isinstance(command, Interrupt | Skip | StopAfter | Look):
            with self._watch_lock:
                if self._watch is None:
                    self._early.append(command)
                else:
                    self._watch.tell(command)
        elif isinstance(command, AskMemory):
            self._report(Memory(self._bench.memory() if self._bench else {}))
        elif isinstance(command, Close):
            self._close()
        else:
            with self._watch_lock:
                # What was said before belongs to an earlier job.
                self._early = []
            self._inbox.put(command)

    def work(self) -> None:
        """Open the workbench, then run what comes until the end."""
        hashes = HashCache(self._config.folders().cache / "hashes.sqlite3")
        try:
            self._bench = bench = open_workbench(self._config, hashes)
        except Exception as error:  # noqa: BLE001 - whatever keeps the engine from starting is told to the user
            logger.exception("The engine cannot start.")
            self._report(Failed("", failure_of(error, self._config.log), died=True))
            return
        remove_partial(self._config.folders())
        storage = Storage(Outputs(self._config.folders()), hashes, self._check_closing)
        self._report(Ready(bench.device))
        while not isinstance(command := self._inbox.get(), Close):
            if isinstance(command, Unload):
                bench.unload()
                continue
            self._run(command, bench, storage)
            self._report(Ready(bench.device))
        bench.close()

    def _run(self, run: Run, bench: Workbench, storage: Storage) -> None:
        self._report(Begun(run.job_id))
        expire_spool(self._config.folders(), run.request.settings.spool_retention_hours)
        saver = Saver(run, storage, self._report)
        watch = JobWatch(run, saver, self._report)
        with self._watch_lock:
            self._watch, early, self._early = watch, self._early, []
        for command in early:
            watch.tell(command)
        try:
            self._report(run_job(run, bench, saver, watch))
        except Exception as error:  # noqa: BLE001 - the job fails, the process goes on
            if not isinstance(error, DarkroomError):
                logger.exception("The job %s failed.", run.job_id)
            self._report(Failed(run.job_id, failure_of(error, self._config.log)))
        finally:
            with self._watch_lock:
                self._watch = None

    def _close(self) -> None:
        self._closing.set()
        with self._watch_lock:
            if self._watch is not None:
                self._watch.interrupt()
        self._inbox.put(Close())
        timer = threading.Timer(GRACE, os._exit, args=(0,))
        timer.daemon = True
        timer.start()

    def _check_closing(self) -> None:
        if self._closing.is_set():
            raise Interrupted("The engine is ending.")


def run_job(run: Run, bench: Workbench, saver: Saver, watch: JobWatch) -> Finished:
    """Do one job and save its pictures; raises what it fails with, after saving what was finished."""
    done = frozenset(image.index for image in already_made(run))
    with saver:
        outcome = _performed(run, bench, saver, watch, done)
    saver.check()
    warning = saver.grid()
    return Finished(run.job_id, not outcome.complete, (*outcome.warnings, *([warning] if warning else ())),
                    outcome.result)


def _performed(run: Run, bench: Workbench, saver: Saver, watch: JobWatch, done: frozenset[int]) -> Outcome:
    asked = run.request
    try:
        if not isinstance(asked, Request):
            return bench.perform(asked, watch, done)
        saver.hash_ahead(*bench.files(asked))
        return bench.generate(asked, watch, done)
    except Interrupted:
        if not watch.interrupted:
            raise
        return Outcome(complete=False)


def _log_to(path: str, level: str) -> None:
    """Send what this process logs from ``level`` on, and the stack of a crash, to ``path``."""
    if not path:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=2_000_000, backupCount=2, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level)
    crashes: Any = open(f"{path}.crash", "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    faulthandler.enable(crashes)
