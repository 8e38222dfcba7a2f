"""img2img's batch: one job with a part for each picture, from uploaded files or a folder of the server."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from modules.core.errors import DarkroomError, Forbidden, InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings
from modules.launcher.access import host, is_loopback
from modules.library.images import read_image_info
from modules.library.infotext import parse
from modules.library.inputs import Inputs
from modules.library.paste import to_request_fields
from modules.web.form import Field, Form

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
MAX_FILES = 2000
# What each picture's infotext may set, under the names that A1111 offers, by field of a request.
PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "Prompt": ("prompt",), "Negative prompt": ("negative_prompt",), "Seed": ("seed",),
    "CFG scale": ("guidance_scale",), "Sampler": ("sampler", "schedule"), "Steps": ("steps",),
    "Model hash": ("model",),
}
FIELDS: Form = (
    Field("batch_input_dir", "Input directory", "text", "", "img2img_batch_input_dir",
          placeholder="Folder on the server; empty: the files above"),
    Field("batch_mask_dir", "Inpaint batch mask directory", "text", "", "img2img_batch_inpaint_mask_dir",
          placeholder="Masks named as their pictures, or one for all; empty: no masks"),
    Field("batch_output_dir", "Output directory", "text", "", "img2img_batch_output_dir",
          placeholder="Folder among img2img's results, files named as their pictures; empty: as usual"),
    Field("batch_properties", "Parameters to take from each picture's infotext", "choices", (),
          "img2img_batch_png_info_props", choices=tuple(PROPERTIES), strict=True),
)
FOLDERS = ("batch_input_dir", "batch_mask_dir")


@dataclass(frozen=True)
class Source:
    """A picture of a batch: its file's name, its id in the store, its infotext, and its mask's id or nothing."""

    name: str
    image: str
    infotext: str = ""
    mask: str = ""


@dataclass(frozen=True)
class Found:
    """The usable pictures of a batch, and a sentence for each that is not."""

    sources: tuple[Source, ...]
    problems: tuple[str, ...] = ()


def is_local(app: Any) -> bool:
    """Return whether only this machine reaches the program, so that its folders may be named."""
    return is_loopback(host(app.flags)) and not app.flags.share


def brought(name: str, data: bytes, inputs: Inputs) -> Source:
    """Store an uploaded picture; raises ``InvalidRequest`` for what is none."""
    stored = inputs.keep(data)
    return Source(name, stored.id, read_image_info(data).infotext)


def sources(values: Mapping[str, Any], app: Any) -> Found:
    """Return what the form's batch consists of: the files of its folder, else those that were uploaded.

    Raises ``Forbidden`` for folders where others reach the program, ``InvalidRequest`` where nothing is usable.
    """
    folder, masks = (str(values.get(name) or "").strip() for name in FOLDERS)
    if (folder or masks) and not is_local(app):
        raise Forbidden("Folders of the server cannot be used while others can reach it.", "Upload the files.")
    inputs = Inputs(app.folders.inputs)
    uploaded = tuple(Source(**one) for one in values.get("batch") or ())
    found = _folder(folder, inputs) if folder else Found(uploaded)
    if masks:
        found = _masked(found, Path(masks).expanduser(), inputs)
    if not found.sources:
        raise InvalidRequest("There is no picture in the batch.", " ".join(found.problems) or "Choose some files.")
    return found


def requests(base: Request, found: Found, properties: Sequence[str], output: str = "") -> list[Request]:
    """Return a request for each picture: ``base`` with that picture, and what its infotext sets of ``properties``.

    With ``output``, a folder below that of the tab's results, pictures are saved there under their sources' names.
    """
    folder = output_folder(output)
    return [_request(base, source, properties, folder) for source in found.sources]


def output_folder(text: str) -> str:
    """Return the folder that ``text`` names, relative to that of the tab's results; empty for the usual one.

    Raises ``InvalidRequest`` for one that may lie elsewhere, so that no form can write outside the results.
    """
    text = text.strip()
    if Path(text).is_absolute() or PureWindowsPath(text).anchor or ".." in re.split(r"[/\\]", text):
        raise InvalidRequest(f"Output directory: {text} is not below the folder of the results.",
                             "Give a name like portraits or trip/day 1.")
    return text


def _named(settings: Settings, folder: str, name: str) -> Settings:
    """Return ``settings`` that save to ``folder`` under the name of the file that was begun from."""
    # Brackets would be read as patterns.
    plain = [re.sub(r"[\[\]]", "_", part) for part in (folder, Path(name).stem)]
    return dataclasses.replace(settings, samples_save=True, save_to_dirs=True, directories_filename_pattern=plain[0],
                               samples_filename_pattern=f"{plain[1]}-[number]")


def _request(base: Request, source: Source, properties: Sequence[str], folder: str) -> Request:
    wanted = {field for name in properties for field in PROPERTIES.get(name, ())}
    pasted = to_request_fields(parse(source.infotext)).fields if source.infotext else {}
    changes = {name: value for name, value in pasted.items() if name in wanted}
    for name in ("prompt", "negative_prompt"):  # added to those of the form, as in A1111
        changes[name] = " ".join(filter(None, (getattr(base, name), changes.get(name, ""))))
    if folder:
        changes["settings"] = _named(base.settings, folder, source.name)
    return dataclasses.replace(base, init_images=(source.image,), mask=source.mask, **changes)


def _files(folder: str | Path) -> list[Path]:
    path = Path(folder).expanduser()
    try:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError as error:
        raise InvalidRequest(f"The folder {path} cannot be read: {error.strerror or error}.") from None
    if len(files) > MAX_FILES:
        raise InvalidRequest(f"{path} has {len(files):,} pictures; at most {MAX_FILES:,} make a batch.")
    return files


def _folder(folder: str, inputs: Inputs) -> Found:
    good, problems = [], []
    for file in _files(folder):
        try:
            good.append(brought(file.name, file.read_bytes(), inputs))
        except (DarkroomError, OSError) as error:
            problems.append(_skipped(file.name, error))
    return Found(tuple(good), tuple(problems))


def _masked(found: Found, folder: Path, inputs: Inputs) -> Found:
    masks = _files(folder)
    by_name = {file.stem: file for file in masks}
    good, problems = [], list(found.problems)
    for source in found.sources:
        file = masks[0] if len(masks) == 1 else by_name.get(Path(source.name).stem)
        try:
            if file is None:
                raise InvalidRequest("it has no mask.")
            good.append(dataclasses.replace(source, mask=inputs.put(file.read_bytes()).id))
        except (DarkroomError, OSError) as error:
            problems.append(_skipped(source.name, error))
    return Found(tuple(good), tuple(problems))


def _skipped(name: str, error: Exception) -> str:
    return f"{name} was skipped: {getattr(error, 'message', '') or error}"
