"""What happens to a request before it is queued: names resolved, seeds fixed, plugins' parameters checked."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from modules.app import recipes
from modules.app.axes import axes
from modules.app.styles import read_styles
from modules.core import codec, plot
from modules.core.axes import MERGE_AXES
from modules.core.errors import InvalidRequest, NoModel, NotFound
from modules.core.extras import NO_UPSCALER, Extras, check_extras, target_size
from modules.core.grid import TITLE
from modules.core.job import Job
from modules.core.merge import Recipe
from modules.core.request import MAX_PICTURES, Request, check, stored_pictures, with_random_seeds
from modules.core.task import Task, generation_of
from modules.host.registry import Host
from modules.imaging.resize import LATENT_UPSCALERS
from modules.imaging.upscalers import find_upscaler
from modules.library.face_restorers import face_files
from modules.library.files import AUTOMATIC, NO_VAE, Folders, Library, ModelFile
from modules.library.inputs import Inputs
from modules.library.upscalers import upscalers as upscaler_files
from modules.plugin import hooks
from modules.prompts import styles
from modules.sampling.samplers import SAMPLERS, Sampler, find_sampler
from modules.sampling.schedules import find_schedule

KINDS = ("txt2img", "img2img")
PROMPTS = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
ID = re.compile(r"[A-Za-z0-9_.()-]{1,100}")


@dataclass(frozen=True)
class Desk:
    """What a request is checked against; ``checkpoint`` is the one that the settings name."""

    folders: Folders
    library: Library
    host: Host
    checkpoint: str = ""

    @cached_property
    def upscalers(self) -> tuple[str, ...]:
        """The names of the upscalers of pixels that model files and extensions add, as of the first look."""
        return (*upscaler_files(self.library), *self.host.upscalers())

    @cached_property
    def find_model(self) -> Callable[[str], ModelFile]:
        """Find a checkpoint as ``find_model`` does; folders are walked once for each name."""
        return functools.cache(functools.partial(find_model, library=self.library))

    @cached_property
    def find_vae(self) -> Callable[[str, ModelFile], ModelFile | None]:
        """Find a VAE as ``Library.find_vae`` does; folders are walked once for each name and checkpoint."""
        return functools.cache(self.library.find_vae)

    @cached_property
    def models(self) -> recipes.Models:
        """The models that recipes of merges name; folders are walked once for each name."""
        return recipes.Models(functools.cache(self.library.find_checkpoint), functools.cache(self.library.find_vae),
                              functools.cache(functools.partial(recipes.called, library=self.library)))

    @cached_property
    def check_faces(self) -> Callable[[str], object]:
        """Raise as ``face_files`` does where the files of a face restorer are not there; they are looked for once."""
        return functools.cache(functools.partial(face_files, self.library))

    @cached_property
    def samplers(self) -> tuple[Sampler, ...]:
        """All samplers, as of the first look."""
        return self.host.samplers()


@dataclass(frozen=True)
class Admitted:
    """A request that can be queued; ``parts`` are what it is expanded to, empty for itself alone.

    Of a grid these are its cells, and the task that draws them.
    """

    request: Request
    parts: tuple[Request | Task, ...] = ()
    warnings: tuple[str, ...] = ()


def admit(request: Request, desk: Desk) -> Admitted:
    """Check and complete ``request``; see ``App.submit`` for what is raised."""
    if request.grid.wanted:
        return admit_plot(check_kind(check(request)), desk)
    request = resolve_names(well_formed(check_kind(check(request))), desk)
    check_inputs(request, Inputs(desk.folders.inputs))
    request, warnings = apply_styles(request, desk.folders.styles)
    request = fix_seeds(request)
    parts = hooks.expand(desk.host.active(request), request)
    if parts == (request,):
        return Admitted(request, (), warnings)
    checked = tuple(fix_seeds(resolve_names(check(part), desk)) for part in parts)
    for part in checked:
        check_inputs(part, Inputs(desk.folders.inputs))
    if sum(part.batch_size * part.batch_count for part in checked) > MAX_PICTURES:
        raise InvalidRequest(f"Extensions make more than {MAX_PICTURES:,} pictures of this request.",
                             "Ask for fewer at once.")
    return Admitted(checked[0], (), warnings) if len(checked) == 1 else Admitted(request, checked, warnings)


def admit_all(requests: Sequence[Request], desk: Desk) -> Admitted:
    """Check and complete ``requests``, the parts of one job; raises as ``admit``."""
    if any(request.grid.wanted for request in requests):
        raise InvalidRequest(f"{TITLE}: A batch of pictures cannot be varied.", "Turn one of them off.")
    admitted = [admit(request, desk) for request in requests]
    parts = _parts(admitted)
    if not parts:
        raise InvalidRequest("There is nothing to make.")
    return Admitted(parts[0], parts, _warnings(admitted))


def admit_plot(request: Request, desk: Desk) -> Admitted:
    """Return ``request`` with the cells of its grid as parts, and last the task that draws them.

    Seeds are fixed once for all cells, unless the grid says otherwise. Raises ``InvalidRequest`` as ``admit``, also
    for an unknown axis and for bad values.
    """
    grid = request.grid
    request = request if grid.no_fixed_seeds else fix_seeds(request)
    offered = (*axes(request.kind, desk.host), *(MERGE_AXES if request.merge else ()))
    lines = plot.lines(grid, offered, lambda: secrets.randbits(32))
    cells = plot.cells(request, lines)
    admitted = [admit(cell.request, desk) for cell in cells]
    parts = _parts(admitted)
    numbers = iter(range(len(parts)))
    places = {cell.place: tuple(itertools.islice(numbers, len(one.parts) or 1))
              for cell, one in zip(cells, admitted, strict=True)}
    drawn = plot.plot_of(grid, lines, places)
    sub_grids = len(drawn.z_labels) if grid.include_sub_grids and len(drawn.z_labels) > 1 else 0
    task = Task(plot.KIND, codec.encode(drawn), TITLE, pictures=1 + sub_grids, settings=request.settings,
                save_images=request.save_images and request.save_grid, gathers=True, tab=request.kind)
    return Admitted(request, (*parts, task), _warnings(admitted))


def _parts(admitted: Sequence[Admitted]) -> tuple[Request, ...]:
    """Return the requests that all of ``admitted`` become; raises ``InvalidRequest`` for too many pictures."""
    parts = tuple(generation_of(part) for one in admitted for part in (one.parts or (one.request,)))
    if sum(part.pictures for part in parts) > MAX_PICTURES:
        raise InvalidRequest(f"At most {MAX_PICTURES:,} pictures can be asked for at once.")
    return parts


def _warnings(admitted: Sequence[Admitted]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(warning for one in admitted for warning in one.warnings))


def admit_extras(extras: Extras, desk: Desk) -> tuple[Extras, tuple[str, ...]]:
    """Return ``extras`` with upscalers under their proper names, and a sentence for each picture that is left out.

    Raises ``InvalidRequest``, ``NotFound`` for a picture that is gone; where nothing remains, what the first lacks.
    """
    inputs, good, problems = Inputs(desk.folders.inputs), [], []
    desk.host.active(extras)
    extras = check_extras(dataclasses.replace(extras, upscaler_1=pixel_upscaler(extras.upscaler_1, desk),
                                              upscaler_2=pixel_upscaler(extras.upscaler_2, desk)))
    for name in extras.restorers:
        desk.check_faces(name)
    for source in extras.sources:
        stored = inputs.get(source.image)
        try:
            target_size(extras, stored.width, stored.height)
            good.append(source)
        except InvalidRequest as error:
            if len(extras.sources) == 1:
                raise
            problems.append(f"{source.name or source.image} was skipped: {error.message}")
    if not good:
        raise InvalidRequest("None of the pictures can be enlarged.", problems[0])
    return dataclasses.replace(extras, sources=tuple(good)), tuple(problems)


def with_merge(request: Request, recipe: Recipe, desk: Desk) -> Request:
    """Return ``request`` for trying out ``recipe``: its models under their proper names, model A as the model.

    A VAE to bake in is the VAE to use. Raises ``InvalidRequest``, ``NotFound``.
    """
    named = desk.models.named(recipe)
    # What matters to a file alone would lie in the row of every cell of a plot.
    named = dataclasses.replace(named, discard="", metadata_json="")
    return dataclasses.replace(request, merge=named, model=named.model_a, vae=named.vae or request.vae)


def pixel_upscaler(name: str, desk: Desk) -> str:
    """Return the proper name of an upscaler of pixels; raises ``InvalidRequest`` with near names."""
    found = find_upscaler(name or NO_UPSCALER, desk.upscalers)
    if found in LATENT_UPSCALERS:
        raise InvalidRequest(f"{found} works inside a generation alone.", "Choose an upscaler of pictures.")
    return found


def check_kind(request: Request) -> Request:
    """Return ``request``, or raise ``InvalidRequest`` for a kind that does not exist."""
    if request.kind not in KINDS:
        raise InvalidRequest(f"kind: {request.kind!r} is none of {', '.join(KINDS)}.")
    return request


def check_inputs(request: Request, inputs: Inputs) -> None:
    """Raise ``NotFound`` where a picture or mask that ``request`` begins from is no longer stored."""
    for key in stored_pictures(request):
        inputs.path(key)


def well_formed(request: Request) -> Request:
    """Return ``request`` with half characters (lone surrogates), which no file can hold, replaced in its prompts."""
    return dataclasses.replace(
        request, **{name: getattr(request, name).encode(errors="replace").decode() for name in PROMPTS})


def resolve_names(request: Request, desk: Desk) -> Request:
    """Return ``request`` with samplers, schedules, models, upscaler and VAE under their proper names.

    ``desk`` knows the samplers and upscalers that model files and extensions add.
    """
    if request.merge is not None:
        request = with_merge(request, request.merge, desk)
    sampler, schedule = _sampling(request.sampler, request.schedule, desk)
    model = desk.find_model(request.model or request.settings.sd_model_checkpoint)
    vae = request.vae or request.settings.sd_vae
    desk.find_vae(vae, model)
    if request.restore_faces:
        desk.check_faces(request.settings.face_restoration_model)
    refiner = desk.find_model(request.refiner).name if request.refiner else ""
    resolved = dataclasses.replace(
        request, sampler=sampler, schedule=schedule, model=model.name, vae=vae, refiner=refiner)
    return _resolve_hires(resolved, desk) if request.enable_hr else resolved


def _resolve_hires(request: Request, desk: Desk) -> Request:
    """Return ``request`` with the names of hires fix resolved; empty ones, which mean the first pass's, stay empty."""
    sampler, schedule = request.hr_sampler, request.hr_schedule
    if sampler:
        sampler, combined = _sampling(sampler, schedule or "Automatic", desk)
        schedule = combined if combined != "Automatic" else schedule
    return dataclasses.replace(
        request, hr_sampler=sampler, hr_schedule=find_schedule(schedule).label if schedule else "",
        hr_upscaler=find_upscaler(request.hr_upscaler, desk.upscalers),
        hr_checkpoint=desk.find_model(request.hr_checkpoint).name if request.hr_checkpoint else "")


def _sampling(sampler: str, schedule: str, desk: Desk) -> tuple[str, str]:
    """Return the proper names of a sampler and a schedule; a schedule in the sampler's name replaces Automatic."""
    found, combined = find_sampler(sampler, desk.samplers)
    schedule = combined if combined and schedule.lower() == "automatic" else schedule
    return found.name, find_schedule(schedule).label


def find_model(text: str, library: Library) -> ModelFile:
    """Return the checkpoint called ``text``, the first of all for an empty text; raises ``NoModel``, ``NotFound``."""
    try:
        if text:
            return library.find_checkpoint(text)
    except NotFound:
        if library.checkpoints():
            raise
    for checkpoint in library.checkpoints():
        return checkpoint
    raise NoModel("There is no model yet.",
                  f"Put a checkpoint (.safetensors) into {library.folders.checkpoints[0]} and press refresh.")


def apply_styles(request: Request, file: Path) -> tuple[Request, tuple[str, ...]]:
    """Return ``request`` with its styles (from the styles' file) in the prompts, and warnings for unknown ones.

    A hires prompt that is empty stays so: it means the prompt, styles and all.
    """
    if not request.styles:
        return request, ()
    known = read_styles(file)
    chosen = [known[name] for name in request.styles if name in known]
    warnings = tuple(f"There is no style {name!r}; it was ignored." for name in request.styles if name not in known)
    texts = {"prompt": [style.prompt for style in chosen],
             "negative_prompt": [style.negative_prompt for style in chosen]}
    texts |= {f"hr_{name}": added for name, added in texts.items() if getattr(request, f"hr_{name}")}
    applied: dict[str, Any] = {name: styles.apply(getattr(request, name), added) for name, added in texts.items()}
    return dataclasses.replace(request, styles=(), **applied), warnings


def fix_seeds(request: Request) -> Request:
    """Return ``request`` with random 32-bit seeds in place of -1."""
    return with_random_seeds(request, secrets.randbits(32), secrets.randbits(32))


def children(parent: Job, parts: Sequence[Request | Task]) -> tuple[Job, ...]:
    """Return a job for each part of ``parent``."""
    return tuple(
        dataclasses.replace(parent, id=f"{parent.id}.{number}", request=part, parent=parent.id, warnings=())
        for number, part in enumerate(parts, 1)
    )


def new_id() -> str:
    """Return an id that no other job has."""
    return secrets.token_hex(8)


def check_id(job_id: str | None) -> None:
    """Raise ``InvalidRequest`` for an id that a client chose badly."""
    if job_id is not None and not ID.fullmatch(job_id):
        raise InvalidRequest("A job's id is 1 to 100 letters, digits or any of _ . - ( ).")


def machine_memory() -> Mapping[str, Any]:
    """Return the machine's memory in bytes, without asking the engine."""
    ram = psutil.virtual_memory()
    return {"ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total}, "cuda": {}}


def listed_choice(
    library: Library, samplers: Callable[[], Sequence[Sampler]] = lambda: SAMPLERS
) -> Callable[[str, Any], Any]:
    """Return the check of settings whose choices are a list: the proper name of a checkpoint, VAE or sampler."""
    def check_listed(choices: str, value: Any) -> Any:
        if choices == "checkpoints":
            return library.find_checkpoint(value).title
        if choices == "vaes" and value not in (AUTOMATIC, NO_VAE):
            found = library.find_vae(value)
            return found.name if found else value
        # Extensions add upscalers that the library does not know; whoever uses one says that it is missing.
        return find_sampler(value, samplers())[0].name if choices == "samplers" else value
    return check_listed
