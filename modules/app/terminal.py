"""What every command of the terminal shares: a line of progress, errors in words, the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from modules.app.failures import failure_of
from modules.app.messages import Advanced, Report, Run
from modules.app.saving import Saver, Storage
from modules.app.tasks import FILE_TASKS
from modules.app.watch import JobWatch
from modules.core.result import Outcome, Progress
from modules.core.task import Task
from modules.library.files import Library
from modules.library.outputs import Outputs

BAR_WIDTH = 30
AT_FAULT = (404, 409, 422)


def answered(action: Callable[[Bar], Iterable[str]], *, shown: bool, interrupted: str = "Interrupted.") -> int:
    """Print the lines that ``action`` returns, given a bar that is drawn if ``shown``; errors are told in words.

    Returns the exit status: 0, or 1 after an error, 2 where the request itself is at fault, 130 after Ctrl+C.
    """
    bar = Bar(sys.stderr, shown=shown)
    try:
        lines = list(action(bar))
    except KeyboardInterrupt:
        bar.end()
        sys.stderr.write(f"{interrupted}\n")
        return 130
    except Exception as error:  # noqa: BLE001 - the last place where it can become a readable line
        bar.end()
        failure = failure_of(error)
        sys.stderr.write(f"Error: {failure.message} {failure.hint}".strip() + "\n")
        return 2 if failure.status in AT_FAULT else 1
    bar.end()
    for line in lines:
        sys.stdout.write(f"{line}\n")
    return 0


def done(task: Task, library: Library, bar: Bar) -> Outcome:
    """Do a task that reads and writes model files alone, and write what it warns of; raises ``DarkroomError`` types."""
    def report(message: Report) -> None:
        if isinstance(message, Advanced):
            bar.show(message.progress)

    run = Run("0", task, watching=True)
    saver = Saver(run, Storage(Outputs(library.folders), library.hashes), report)
    outcome = FILE_TASKS[task.task](task, library, JobWatch(run, saver, report, previews=False))
    bar.end()
    for warning in outcome.warnings:
        sys.stderr.write(f"{warning}\n")
    return outcome


class Bar:
    """One line of progress on a terminal, nothing where the output goes elsewhere."""

    def __init__(self, stream: TextIO, *, shown: bool = True) -> None:
        self._stream = stream
        self._shown = shown and stream.isatty()
        self._open = False

    def show(self, progress: Progress) -> None:
        """Draw where the job stands, over what was drawn before."""
        if not self._shown:
            return
        self._stream.write(f"\r\x1b[K{bar_line(progress)}")
        self._stream.flush()
        self._open = True

    def end(self) -> None:
        """Leave the line."""
        if self._open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
        self._open = False


def bar_line(progress: Progress) -> str:
    """Return ``[#####.....]  50%  step 10/20  picture 1/2  0:04 left``, or the phase."""
    if progress.phase and not progress.step:
        return f"{progress.phase} ..."
    filled = round(BAR_WIDTH * progress.fraction)
    bar = "#" * filled + "." * (BAR_WIDTH - filled)
    line = f"[{bar}] {progress.fraction:4.0%}  step {progress.step}/{progress.steps}"
    if progress.pictures > 1:
        line += f"  picture {progress.picture + 1}/{progress.pictures}"
    if progress.eta is not None:
        line += f"  {int(progress.eta) // 60}:{int(progress.eta) % 60:02} left"
    return line


def project_root() -> Path:
    """Return the folder of the program."""
    return Path(__file__).resolve().parents[2]
