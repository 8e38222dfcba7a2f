"""The engine's process seen from here: started in the background, fed, watched and started again when it dies."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from modules.app.failures import death, failure_of
from modules.app.messages import (
    Close,
    Command,
    EngineStatus,
    Failed,
    Ready,
    Report,
    Run,
    pack,
    unpack,
)
from modules.app.workbench import WorkerConfig
from modules.app.worker import main
from modules.core.errors import EngineDied, InvalidRequest
from modules.core.result import Failure

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for a start, for an end, and between starts that fail (doubled each time)."""

    start: float = 600.0
    end: float = 5.0
    first_retry: float = 1.0
    last_retry: float = 60.0

    def before_retry(self, failures: int) -> float:
        """Return the pause after ``failures`` starts in a row came to nothing."""
        return 0.0 if not failures else min(self.last_retry, self.first_retry * 2.0 ** (failures - 1))


class EngineClient:
    """An ``Engine`` in a spawned process. One thread starts it, reads what it tells and starts it again."""

    def __init__(self, config: WorkerConfig, patience: Patience | None = None) -> None:
        self._config = config
        self._patience = patience or Patience()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._status = EngineStatus("starting", "The engine is starting.")
        self._outbox: queue.SimpleQueue[Command | None] | None = None
        self._connection: Connection | None = None
        self._process: SpawnProcess | None = None
        self._failures = 0
        self._thread: threading.Thread | None = None

    def start(self, report: Callable[[Report], None]) -> None:
        """Begin in the background."""
        self._thread = threading.Thread(target=self._keep_running, args=(report,), name="engine", daemon=True)
        self._thread.start()

    def status(self) -> EngineStatus:
        """Return how the process does."""
        return self._status

    def send(self, command: Command) -> None:
        """Pass ``command`` to the process; without one it is lost, and the process's death is reported anyway."""
        with self._lock:
            if self._outbox is None:
                return
            if isinstance(command, Run):
                self._set("busy")
            self._outbox.put(command)

    def close(self) -> None:
        """Ask the process to end, and end it if it does not."""
        self._closing.set()
        self.send(Close())
        if self._thread is not None:
            self._thread.join(3 * self._patience.end)
        self._end_process()
        self._status = EngineStatus("stopped", "The engine has stopped.")

    def _keep_running(self, report: Callable[[Report], None]) -> None:
        while not self._closing.wait(self._patience.before_retry(self._failures)):
            self._failures += 1
            reason = self._live(report)
            if self._closing.is_set():
                return
            pause = self._patience.before_retry(self._failures)
            message = f"{reason.message} It starts again{f' in {pause:.0f} s' if pause else ''}."
            self._status = EngineStatus("restarting", message)
            self._tell(Failed("", reason, died=True), report)

    def _live(self, report: Callable[[Report], None]) -> Failure:
        """Start the process, pass on what it tells until it ends, and return why it did."""
        told: Failure | None = None
        try:
            connection = self._spawn()
        except OSError as error:
            return failure_of(EngineDied(f"The engine's process could not be started: {error}."))
        deadline = time.monotonic() + self._patience.start
        try:
            while not self._closing.is_set():
                starting = self._status.state == "starting"
                if not connection.poll(max(0.0, deadline - time.monotonic()) if starting else None):
                    told = failure_of(EngineDied(f"The engine did not start within {self._patience.start:.0f} s."))
                    break
                message = unpack(connection.recv_bytes())
                if isinstance(message, Failed) and message.died:
                    told = message.failure
                    continue
                self._pass_on(message, report)
        except (EOFError, OSError):
            logger.info("The engine's process has closed its pipe.")
        except InvalidRequest:
            logger.exception("The engine cannot be understood.")
        exit_code = self._end_process()
        return told or failure_of(death(exit_code))

    def _pass_on(self, message: Report, report: Callable[[Report], None]) -> None:
        if isinstance(message, Ready):
            self._failures = 0
            self._set("ready", message.device)
        self._tell(message, report)

    def _tell(self, message: Report, report: Callable[[Report], None]) -> None:
        try:
            report(message)
        except Exception:  # noqa: BLE001 - this thread must go on whatever its listener does
            logger.exception("%s was not taken.", type(message).__name__)

    def _spawn(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=main, args=(theirs, self._config), name="engine", daemon=True)
        process.start()
        # Only the child may hold its end, or its death would go unnoticed.
        theirs.close()
        outbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        threading.Thread(target=_write, args=(ours, outbox), name="engine-commands", daemon=True).start()
        with self._lock:
            self._connection, self._process, self._outbox = ours, process, outbox
            self._status = EngineStatus("starting", "The engine is starting.", pid=process.pid or 0)
        return ours

    def _end_process(self) -> int | None:
        """Give the process time to end, then end it; return its exit code."""
        with self._lock:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
            outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.put(None)
        if process is None:
            return None
        if connection is not None:
            connection.close()
        for last_resort in (None, process.terminate, process.kill):
            if last_resort is not None:
                last_resort()
            process.join(self._patience.end)
            if process.exitcode is not None:
                break
        return process.exitcode

    def _set(self, state: str, device: str = "") -> None:
        status = self._status
        self._status = EngineStatus(state, "", device or status.device, status.pid)


def _write(connection: Connection, outbox: queue.SimpleQueue[Command | None]) -> None:
    """Pass commands on in a thread of its own, so that nobody waits for a process that is slow to read."""
    while (command := outbox.get()) is not None:
        try:
            connection.send_bytes(pack(command))
        except OSError:
            logger.info("The engine did not take %s.", type(command).__name__)
            return
