"""The job that runs, as the queue keeps it in mind."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modules.app.jobs import Share
from modules.core.job import Job
from modules.core.result import Progress

# From this share on the time that has passed says something about the time that is left.
SURE = 0.02


@dataclass(frozen=True)
class Running:
    """The job that runs: the row that was handed to the engine, how far its parent is, and what it was asked to do
    (``interrupt``, ``skip``, ``stop``)."""

    job: Job
    share: Share
    top_started: float
    progress: Progress
    asked: frozenset[str] = frozenset()
    begun: bool = False

    @property
    def top(self) -> str:
        """The id that users know."""
        return self.job.parent or self.job.id

    def whole(self, now: float) -> Progress:
        """Return the progress of the parent of what runs, at ``now`` seconds since the epoch."""
        share, own = self.share, self.progress
        fraction = min(1.0, (share.ended + own.fraction) / max(1, share.parts))
        elapsed = now - self.top_started
        return replace(own, picture=share.pictures_ended + own.picture, pictures=share.pictures, fraction=fraction,
                       eta=elapsed * (1.0 - fraction) / fraction if fraction > SURE else None)
