"""The Extras tab's work: each picture enlarged, mixed, cropped, with its infotext carried on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modules.core.errors import DarkroomError, Interrupted, InvalidModel, InvalidRequest, Skipped
from modules.core.extras import Extras, Source, crops, entries, target_size
from modules.core.plan import ModelRef
from modules.core.result import FinishedPicture, Outcome, Watch
from modules.core.settings import Settings
from modules.imaging.faces import FaceRestorer, FindRestorer, no_restorer
from modules.imaging.resize import Resampler, Upscaler
from modules.imaging.upscalers import Advance, Occasion, told
from modules.library import infotext
from modules.library.inputs import Inputs
from modules.plugin import Plugin, hooks
from modules.plugin.hooks import Active
from modules.upscaling.diffusion import DiffusionUpscaler
from modules.upscaling.faces.restorer import NetworkFaceRestorer
from modules.upscaling.pixels import Picture, as_deep_as, opened, opened_file, saved, shown
from modules.upscaling.upscaler import NetworkUpscaler


@dataclass(frozen=True)
class Bench:
    """What a job works with: stored pictures, upscalers by name, plugins with their parameters, settings.

    ``restorer`` finds a face restorer by its name.
    """

    inputs: Inputs
    upscalers: Mapping[str, Upscaler]
    active: Sequence[Active] = ()
    settings: Settings = field(default_factory=Settings)
    restorer: FindRestorer = no_restorer


@dataclass(frozen=True)
class Chosen:
    """What takes part: the upscalers in order, and face restorers with their visibility."""

    upscalers: tuple[Upscaler, ...]
    restorers: tuple[tuple[FaceRestorer, float], ...]


def perform(extras: Extras, bench: Bench, watch: Watch, done: frozenset[int]) -> Outcome:
    """Enlarge the pictures of ``extras`` but those whose index is in ``done``.

    Of several pictures that plugins make of one the last has the index of the source, and so says that it is done; the
    others have that and once, twice ... the number of sources more.

    One that cannot be read or does not fit into memory is left out with a warning; where there is only one, what is
    wrong with it is raised, and so is what is wrong with an upscaler or a face restorer; one that is gone is an
    ``InvalidRequest``.
    """
    chosen = _chosen(extras, bench)
    made_by = entries(extras) | _diffusion_entries(chosen, bench.settings)
    problems: list[str] = []
    for index, source in enumerate(extras.sources):
        if index in done:
            continue
        if watch.stopping():
            return Outcome(False, tuple(problems))
        watch.batch(index, 1)
        try:
            picture = opened_file(bench.inputs.path(source.image), bench.inputs.open(source.image))
            parts = _postprocessed(bench, processed(extras, chosen, picture, _occasion(source, bench), watch))
            for number, part in enumerate(parts, 1):
                own = index if number == len(parts) else index + number * len(extras.sources)
                watch.picture(_finished(own, source, made_by, bench, part))
        except Skipped:
            continue
        except (Interrupted, InvalidModel):
            raise
        except DarkroomError as error:
            if len(extras.sources) == 1:
                raise
            problems.append(f"{source.name or f'Picture {index + 1}'} was skipped: {error.message}")
    return Outcome(True, tuple(problems))


def processed(extras: Extras, chosen: Chosen, picture: Picture, occasion: Occasion, watch: Watch) -> Picture:
    """Return ``picture`` enlarged and with its faces restored, in the order that ``extras`` wants."""
    enlarging, restoring = len(chosen.upscalers), len(chosen.restorers)
    told_of = [_told(watch, part, enlarging + restoring) for part in range(enlarging + restoring)]
    if extras.upscale_first:
        larger = enlarged(extras, chosen.upscalers, picture, occasion, told_of[:enlarging])
        return restored(extras, chosen.restorers, larger, told_of[enlarging:])
    made = restored(extras, chosen.restorers, picture, told_of[:restoring])
    return enlarged(extras, chosen.upscalers, made, occasion, told_of[restoring:])


def enlarged(extras: Extras, upscalers: Sequence[Upscaler], picture: Picture, occasion: Occasion,
             advances: Sequence[Advance]) -> Picture:
    """Return ``picture`` by the first of ``upscalers``, the second mixed in; as it is where there are none."""
    if not upscalers:
        return picture
    size = target_size(extras, *picture.size)
    result, *others = (
        _upscaled(told(upscaler, dataclasses.replace(occasion, advance=advance)), picture, size, advance)
        for upscaler, advance in zip(upscalers, advances, strict=True))
    for other in others:
        result = mixed(result, other, extras.extras_upscaler_2_visibility)
    return cropped(result, extras.upscaling_resize_w, extras.upscaling_resize_h) if crops(extras) else result


def restored(extras: Extras, restorers: Sequence[tuple[FaceRestorer, float]], picture: Picture,
             advances: Sequence[Advance]) -> Picture:
    """Return ``picture`` with its faces restored by one of ``restorers`` after the other, each mixed in."""
    for (restorer, visibility), advance in zip(restorers, advances, strict=True):
        picture = mixed(picture, _restored(restorer, picture, extras.codeformer_weight, advance), visibility)
    return picture


def _occasion(source: Source, bench: Bench) -> Occasion:
    said = infotext.parse(source.infotext)
    return Occasion(bench.settings, said.prompt, said.negative_prompt)


def mixed(first: Picture, second: Picture, share: float) -> Picture:
    """Return ``first`` with ``share`` of ``second``; the alpha is that of ``first``, for neither changes it."""
    pixels = np.empty_like(first.pixels)
    for row in range(len(pixels)):  # a row at a time, so that no picture of floats is made
        difference = second.pixels[row].astype(np.float32) - first.pixels[row]
        pixels[row] = np.rint(first.pixels[row] + difference * share)
    return Picture(pixels, first.alpha)


def cropped(picture: Picture, width: int, height: int) -> Picture:
    """Return the middle of ``picture``."""
    left, top = (picture.size[0] - width) // 2, (picture.size[1] - height) // 2
    part = np.s_[top:top + height, left:left + width]
    return Picture(np.ascontiguousarray(picture.pixels[part]), None if picture.alpha is None else picture.alpha[part])


def extended(text: str, more: Mapping[str, str]) -> infotext.Infotext:
    """Return the infotext ``text`` with further entries; those of an earlier time give way."""
    found = infotext.parse(text)
    return infotext.Infotext(found.prompt, found.negative_prompt, {**infotext.joined_sizes(found.parameters), **more})


def _chosen(extras: Extras, bench: Bench) -> Chosen:
    restorers = tuple((bench.restorer(name), visibility) for name, visibility in extras.restorers.items())
    return Chosen(_upscalers(extras, bench.upscalers), restorers)


def _upscalers(extras: Extras, upscalers: Mapping[str, Upscaler]) -> tuple[Upscaler, ...]:
    try:
        return tuple(upscalers[name] for name in extras.upscalers)
    except KeyError as error:
        raise InvalidRequest(f"There is no upscaler {error.args[0]!r}.", f"There are {', '.join(upscalers)}.") from None


def _upscaled(upscaler: Upscaler, picture: Picture, size: tuple[int, int], advance: Advance) -> Picture:
    if isinstance(upscaler, NetworkUpscaler | DiffusionUpscaler):
        return upscaler.enlarged(picture, size)
    advance(0, 1)
    if isinstance(upscaler, Resampler):
        result = opened(saved(picture).resize(size, upscaler.filter))
    else:
        result = as_deep_as(picture, opened(upscaler.upscale(shown(picture), *size)))
    advance(1, 1)
    return result


def _restored(restorer: FaceRestorer, picture: Picture, fidelity: float, advance: Advance) -> Picture:
    if isinstance(restorer, NetworkFaceRestorer):
        return restorer.restored(picture, fidelity, advance)
    return as_deep_as(picture, opened(restorer.restore(shown(picture), fidelity, advance)))


def _told(watch: Watch, part: int, parts: int) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        watch.check()
        watch.step(part * total + done, parts * total)
    return advance


def _postprocessed(bench: Bench, picture: Picture) -> list[Picture]:
    """Return what plugins make of an enlarged picture; one of 16 bits stays so where they leave it alone or know it."""
    if not any(type(item.plugin).postprocess is not Plugin.postprocess for item in bench.active):
        return [picture]
    made = hooks.postprocess(bench.active, saved(picture))
    return [picture] if made is None else [opened(one) for one in made]


def _diffusion_entries(chosen: Chosen, settings: Settings) -> dict[str, str]:
    if not any(isinstance(upscaler, DiffusionUpscaler) for upscaler in chosen.upscalers):
        return {}
    changed = infotext.changed_settings(settings).items()
    return {name: value for name, value in changed if name.startswith(infotext.OF_DIFFUSION_UPSCALERS)}


def _finished(index: int, source: Source, made_by: Mapping[str, str], bench: Bench,
              picture: Picture) -> FinishedPicture:
    text = extended(source.infotext, {**made_by, **hooks.infotext(bench.active)})
    return FinishedPicture(index, saved(picture), text.prompt, text.negative_prompt, 0, 0, ModelRef(""),
                           text.parameters, basename=Path(source.name).stem)
