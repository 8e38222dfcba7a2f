"""Pictures to files while sampling goes on: the file waits for the model's hash, the sampler never does."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from modules.app.messages import Report, Run, Saved
from modules.core.errors import DarkroomError
from modules.core.request import Request
from modules.core.result import GRID, PICTURE, FinishedPicture, SavedImage
from modules.core.task import Task
from modules.imaging import grids
from modules.library import infotext
from modules.library.hashes import HashCache, short_hash
from modules.library.images import read_picture
from modules.library.outputs import Outputs, Target
from modules.library.patterns import Facts

logger = logging.getLogger(__name__)

# Finished pictures that may wait for a hash or a slow disk before sampling waits too.
WAITING_PICTURES = 8
MAX_GRID_PIXELS = 128 * 1024 * 1024
# The names of what tasks make: the number alone where there is no source.
NAMED_AS_SOURCE = "[number]-[basename]"
# And those of a batch in a folder of its own, where they lie in the order of their sources.
BELOW_FOLDER = "[basename]-[number]"


@dataclass(frozen=True)
class Storage:
    """What writes pictures, and who knows hashes. ``check`` raises to give up waiting for a hash."""

    outputs: Outputs
    hashes: HashCache
    check: Callable[[], None] = lambda: None


def already_made(run: Run) -> tuple[SavedImage, ...]:
    """Return what an earlier, killed run of the same job has saved: pictures, of a task whatever it makes."""
    return tuple(image for image in run.saved if image.kind == PICTURE or isinstance(run.request, Task))


class Saver:
    """Saves the pictures of one job in a thread of its own, in order, and reports each once it is on disk.

    Pictures that ``run.saved`` holds already are not written again. Use as a context manager: leaving it waits until
    everything is on disk.
    """

    def __init__(self, run: Run, storage: Storage, report: Callable[[Report], None]) -> None:
        self._run = run
        self._storage = storage
        self._report = report
        self._saved = list(already_made(run))
        self._before = frozenset(image.index for image in self._saved)
        self._waiting: queue.Queue[FinishedPicture | None] = queue.Queue(WAITING_PICTURES)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)

    def __enter__(self) -> Saver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    @property
    def saved(self) -> tuple[SavedImage, ...]:
        """The job's pictures on disk, by index."""
        return tuple(sorted(self._saved, key=lambda image: image.index))

    def hash_ahead(self, *paths: str | None) -> None:
        """Begin to compute hashes that the infotext will need, in the background."""
        wanted = [Path(path) for path in paths if path and not self._storage.hashes.cached(Path(path))]
        if wanted:
            threading.Thread(target=self._hash_all, args=(wanted,), name="hashes", daemon=True).start()

    def put(self, picture: FinishedPicture) -> None:
        """Hand over a picture; raises what an earlier one could not be saved for."""
        self.check()
        self._waiting.put(picture)

    def check(self) -> None:
        """Raise what a picture could not be saved for."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (picture := self._waiting.get()) is not None:
            if self._error is not None or picture.index in self._before:
                continue
            try:
                image = self._save(picture) if not picture.stage or self._wants_file(picture) else None
            except Exception as error:  # noqa: BLE001 - raised again by check, in the thread that runs the job
                self._error = error
                continue
            if image is None or picture.stage:  # of what is kept of the way to a result nobody hears
                continue
            self._saved.append(image)
            self._report(Saved(self._run.job_id, image))

    def _save(self, picture: FinishedPicture) -> SavedImage:
        request = self._run.request
        # What a task carries along names models that it did not use.
        parameters = picture.parameters if isinstance(request, Task) else with_hashes(picture, self._hash)
        text = infotext.format(picture.prompt, picture.negative_prompt, parameters)
        about = facts(request, picture, parameters)
        ending = f"-{picture.stage}" if picture.stage else ""
        pattern, folder = ("", "") if isinstance(request, Request) else (NAMED_AS_SOURCE, request.folder)
        pattern = (BELOW_FOLDER if folder else pattern) if picture.kind == PICTURE else ""
        target = Target(about, request.kind, picture.kind, not self._wants_file(picture), ending, pattern, folder)
        path = self._storage.outputs.save(picture.image, text, target, request.settings)
        return SavedImage(str(path), picture.kind, picture.image.width, picture.image.height, picture.seed, text,
                          picture.index)

    def _wants_file(self, picture: FinishedPicture) -> bool:
        """Return whether a picture belongs among the outputs; the others are only kept for a while."""
        request = self._run.request
        settings = request.settings
        wanted = picture.complete or settings.save_incomplete_images
        saved = settings.grid_save if picture.kind == GRID else settings.samples_save
        return request.save_images and saved and wanted

    def grid(self) -> str:
        """Save a grid of the job's pictures if it is wanted; return why not, if that is worth a warning."""
        request, pictures = self._run.request, self.saved
        if isinstance(request, Task) or not wants_grid(request, len(pictures)):
            return ""
        if any(image.kind == GRID for image in self._run.saved):
            return ""
        rows = grids.row_count(len(pictures), request.settings.n_rows, request.batch_size)
        pixels = sum(image.width * image.height for image in pictures)
        if pixels > MAX_GRID_PIXELS:
            return f"A grid of {len(pictures)} pictures would be too large; there is none."
        try:
            grid = grids.grid([read_picture(image.path) for image in pictures], rows)
        except OSError as error:
            return f"There is no grid: {error}."
        first = pictures[0]
        spool = not (request.save_images and request.settings.grid_save)
        about = Facts(first.seed, now(), request.prompt, request.negative_prompt)
        target = Target(about, request.kind, GRID, spool)
        path = self._storage.outputs.save(grid, first.infotext, target, request.settings)
        image = SavedImage(str(path), GRID, grid.width, grid.height, first.seed, first.infotext, 0)
        self._report(Saved(self._run.job_id, image))
        return ""

    def _hash(self, path: str) -> str:
        try:
            return short_hash(self._storage.hashes.sha256(Path(path), self._storage.check))
        except OSError as error:
            logger.warning("%s has no hash: %s", path, error)
            return ""

    def _hash_all(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                self._storage.hashes.sha256(path, self._storage.check)
            except (OSError, DarkroomError) as error:
                logger.info("%s is not hashed: %s", path, error)


def with_hashes(picture: FinishedPicture, hash_of: Callable[[str], str]) -> Mapping[str, str]:
    """Return the picture's infotext entries with the hashes of its models put in, or left out if unknown.

    Those of model and VAE are entries of their own, those of other checkpoints follow their names: ``name [hash]``.
    """
    files = {"Model hash": picture.model.checkpoint, "VAE hash": picture.model.vae}
    entries = dict(picture.parameters)
    for key, path in files.items():
        if key in entries:
            entries[key] = hash_of(path) if path else ""
            if not entries[key]:
                del entries[key]
    for key, path in picture.others.items():
        if key in entries and (digits := hash_of(path)):
            entries[key] = f"{entries[key]} [{digits}]"
    return entries


def wants_grid(request: Request, pictures: int) -> bool:
    """Return whether a job of that many pictures gets a grid, saved or only shown."""
    settings = request.settings
    shown_or_saved = settings.return_grid or settings.grid_save
    return bool(pictures) and request.save_grid and shown_or_saved and (
        pictures > 1 or not settings.grid_only_if_multiple)


def facts(request: Request | Task, picture: FinishedPicture, parameters: Mapping[str, str]) -> Facts:
    """Return what patterns can put into the picture's file name."""
    if isinstance(request, Task):
        return Facts(picture.seed, now(), picture.prompt, picture.negative_prompt, width=picture.image.width,
                     height=picture.image.height, basename=picture.basename)
    last = request.seed + request.batch_size * request.batch_count - 1
    return Facts(
        seed=picture.seed, now=now(), prompt=picture.prompt, negative_prompt=picture.negative_prompt,
        prompt_no_styles=picture.prompt, seeds=(request.seed, last), width=picture.image.width,
        height=picture.image.height, steps=request.steps, guidance_scale=request.guidance_scale,
        sampler=request.sampler, schedule=request.schedule, model_name=parameters.get("Model", ""),
        model_hash=parameters.get("Model hash", ""), vae=parameters.get("VAE", ""),
        batch_number=picture.index % request.batch_size + 1, batch_size=request.batch_size,
        generation_number=picture.index + 1, pictures=request.batch_size * request.batch_count,
        clip_skip=request.settings.CLIP_stop_at_last_layers,
        image_hash=lambda: hashlib.sha256(picture.image.tobytes()).hexdigest(),
    )


def now() -> datetime:
    """Return the time here, with its time zone."""
    return datetime.now().astimezone()
