"""What the engine tells while a job runs, and what it is asked, inside the engine's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from modules.app.messages import Advanced, Interrupt, Look, Previewed, Report, Run, Skip, StopAfter
from modules.app.progress import Meter
from modules.app.saving import Saver, already_made
from modules.core.errors import Interrupted, Skipped
from modules.core.result import FinishedPicture
from modules.imaging.thumbnails import encode_jpeg

PROGRESS_INTERVAL = 0.1
PREVIEW_INTERVAL = 0.25
PREVIEW_SIDE = 512
PREVIEW_QUALITY = 80


class JobWatch:
    """The ``Watch`` of one job. ``tell`` and ``interrupted`` may be used from other threads.

    Progress is reported at most ten times, previews four times a second, and only while somebody looks.
    """

    def __init__(self, run: Run, saver: Saver, report: Callable[[Report], None],
                 clock: Callable[[], float] = time.monotonic, *, previews: bool = True) -> None:
        self._job_id = run.job_id
        self._saver = saver
        self._report = report
        self._clock = clock
        self._meter = Meter(run.request.pictures, len({image.index for image in already_made(run)}))
        self._lock = threading.Lock()
        self._watching = run.watching
        self._interrupt = threading.Event()
        self._skip = threading.Event()
        self._stop = threading.Event()
        self._previews = previews
        self._sampling = self._began = False
        self._reported = self._previewed = -1.0

    def tell(self, command: Interrupt | Skip | StopAfter | Look) -> None:
        """Take a command for this job; the next model call obeys it."""
        if isinstance(command, Look):
            with self._lock:
                self._watching = command.watching
            self._advance(force=True)
        elif command.job_id == self._job_id:
            {Interrupt: self._interrupt, Skip: self._skip, StopAfter: self._stop}[type(command)].set()

    def interrupt(self) -> None:
        """Stop at the next model call."""
        self._interrupt.set()

    @property
    def interrupted(self) -> bool:
        """Whether the job was asked to stop."""
        return self._interrupt.is_set()

    def check(self) -> None:
        """Raise ``Interrupted``, or ``Skipped`` in the middle of a batch, if that was asked for."""
        if self._interrupt.is_set():
            raise Interrupted("The job was interrupted.")
        if self._skip.is_set() and self._sampling:
            self._skip.clear()
            raise Skipped("The batch was skipped.")

    def stopping(self) -> bool:
        """Return whether to stop once the current batch is finished; a job always begins one."""
        return self._stop.is_set() and self._began

    def phase(self, text: str) -> None:
        """Say what is going on outside sampling."""
        with self._lock:
            self._meter.phase(text)
        self._advance(force=True)

    def batch(self, first: int, pictures: int) -> None:
        """A batch begins; what was asked to be skipped before does not concern it."""
        self._skip.clear()
        self._sampling = self._began = True
        with self._lock:
            self._meter.batch(first, pictures)
        self._advance(force=True)

    def step(self, done: float, total: int) -> None:
        """``done`` of ``total`` steps of the batch are complete."""
        with self._lock:
            self._meter.step(done, total, self._clock())
        self._advance()

    def wants_preview(self) -> bool:
        """Return whether somebody is looking and enough time has passed since the last preview."""
        return self._previews and self._watching and self._clock() - self._previewed >= PREVIEW_INTERVAL

    def preview(self, image: Any) -> None:
        """Show a PIL image as a JPEG of at most 512 pixels a side."""
        self._previewed = self._clock()
        jpeg = encode_jpeg(image, PREVIEW_QUALITY, PREVIEW_SIDE)
        with self._lock:
            number = self._meter.preview()
        self._report(Previewed(self._job_id, number, jpeg))

    def picture(self, picture: FinishedPicture) -> None:
        """Hand a picture to be saved; raises what an earlier one failed with."""
        self._sampling = self._sampling and bool(picture.stage)
        self._saver.put(picture)

    def _advance(self, *, force: bool = False) -> None:
        with self._lock:
            now = self._clock()
            if not self._watching or (not force and now - self._reported < PROGRESS_INTERVAL):
                return
            self._reported = now
            progress = self._meter.progress(now)
        self._report(Advanced(self._job_id, progress))
