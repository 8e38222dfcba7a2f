"""What is asked for on the command line: to serve, to make pictures, or to run the tests."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modules import __version__
from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.grid import Grid
from modules.core.merge import Recipe
from modules.core.request import Request, check
from modules.core.settings import Settings, check_value, with_values
from modules.launcher.access import check_exposure, read_accounts
from modules.launcher.flags import ENVIRONMENT, Flags, add_flags, flags_from
from modules.launcher.foreign_flags import add_foreign_flags, explain
from modules.launcher.work_arguments import SUMMARY as WORK_SUMMARY
from modules.launcher.work_arguments import WORKS, Work, add_work, work_from

SERVE, TXT2IMG, IMG2IMG, TEST, INSPECT = "serve", "txt2img", "img2img", "test", "inspect"
MAKING = (TXT2IMG, IMG2IMG)
NEW_EXTENSION, INSTALL_EXTENSION, UPDATE_EXTENSION = "new-extension", "install-extension", "update-extension"
ON_EXTENSIONS = (NEW_EXTENSION, INSTALL_EXTENSION, UPDATE_EXTENSION)
COMMANDS = (SERVE, *MAKING, *WORKS, TEST, INSPECT, *ON_EXTENSIONS)

_SUMMARY = {
    SERVE: "Serve the page and the API. Other commands: txt2img, img2img, merge, merge-loras, extract-lora, "
           "inspect, test, new-extension, install-extension, update-extension (see `webui.py txt2img --help`).",
    TXT2IMG: "Make pictures without a server.",
    IMG2IMG: "Make pictures from pictures without a server.",
    **WORK_SUMMARY,
    INSPECT: "Say what a model file is and holds, from its header.",
    TEST: "Install what the tests need and run them; further words go to pytest.",
    NEW_EXTENSION: "Begin an extension: a folder with a working plugin.py, and its test.",
    INSTALL_EXTENSION: "Install an extension from a git address or an archive, after showing what it asks for.",
    UPDATE_EXTENSION: "Bring an installed extension to what its address has now.",
}
_WORD = {NEW_EXTENSION: ("NAME", "its name: lower-case letters, digits, underscores"),
         INSTALL_EXTENSION: ("ADDRESS", "git address or archive (path or https); @COMMIT or @SHA256 pins it"),
         UPDATE_EXTENSION: ("NAME", "its name"),
         INSPECT: ("NAME", "the model's name, without folder and suffix, or its hash")}
_DEFAULTS = Request()


# Arguments of ``txt2img`` by the field of ``Request`` that each fills; what they take follows from its default.
_FIRST_PASS = {
    "steps": "--steps", "sampler": "--sampler", "schedule": "--schedule", "guidance_scale": "--cfg-scale",
    "seed": "--seed", "width": "--width", "height": "--height", "batch_size": "--batch-size",
    "batch_count": "--batch-count", "styles": "--style", "tiling": "--tiling", "model": "--model", "vae": "--vae",
    "restore_faces": "--restore-faces", "refiner": "--refiner", "refiner_switch_at": "--refiner-switch-at",
}
_HIRES = {
    "enable_hr": "--hires", "hr_scale": "--hires-scale", "hr_resize_x": "--hires-width",
    "hr_resize_y": "--hires-height", "hr_upscaler": "--hires-upscaler", "hr_second_pass_steps": "--hires-steps",
    "denoising_strength": "--denoising-strength", "hr_checkpoint": "--hires-checkpoint",
    "hr_sampler": "--hires-sampler", "hr_schedule": "--hires-schedule", "hr_guidance_scale": "--hires-cfg-scale",
    "hr_prompt": "--hires-prompt", "hr_negative_prompt": "--hires-negative-prompt",
}
_IMAGE = {
    "denoising_strength": "--denoising-strength", "resize_mode": "--resize-mode",
    "image_cfg_scale": "--image-cfg-scale", "initial_noise_multiplier": "--noise-multiplier",
    "mask_blur_x": "--mask-blur", "inpainting_mask_invert": "--mask-invert", "inpainting_fill": "--masked-content",
    "inpaint_full_res": "--only-masked", "inpaint_full_res_padding": "--only-masked-padding",
    "inpaint_mode": "--inpaint-mode", "outpaint_left": "--outpaint-left", "outpaint_right": "--outpaint-right",
    "outpaint_up": "--outpaint-up", "outpaint_down": "--outpaint-down", "outpaint_fill": "--outpaint-fill",
    "outpaint_noise_q": "--outpaint-fall-off", "outpaint_color_variation": "--outpaint-color-variation",
}
_GRID = {
    "x_type": "--x-type", "x_values": "--x-values", "y_type": "--y-type", "y_values": "--y-values",
    "z_type": "--z-type", "z_values": "--z-values", "draw_legend": "--no-legend",
    "include_lone_images": "--include-sub-images", "include_sub_grids": "--include-sub-grids",
    "no_fixed_seeds": "--keep-random-seeds", "vary_seeds_x": "--vary-seeds-x", "vary_seeds_y": "--vary-seeds-y",
    "vary_seeds_z": "--vary-seeds-z", "margin_size": "--grid-margin",
}
# What the command line begins with where A1111's tab does not begin as a request.
_IMAGE_DEFAULTS = {"denoising_strength": 0.75}
_STORED = "0" * 32
_WHERE_EMPTY = {"model": "what the settings say", "vae": "what the settings say", "refiner": "none"}
_AXIS, _VALUES = "what varies, such as CFG Scale or Sampler", "its values, such as 5, 7, 9 or 1-10 [5]"
_HELP = {"styles": "a style of styles.csv; may be repeated", "tiling": "pictures that repeat without a seam",
         "restore_faces": "make faces good, by what the settings say", "enable_hr": "make each picture again, larger",
         "resize_mode": "0 resize, 1 crop and resize, 2 resize and fill, 3 resize the latent; default 0",
         "inpainting_mask_invert": "repaint what the mask leaves black",
         "inpainting_fill": "0 fill, 1 original, 2 latent noise, 3 latent nothing; default 1",
         "inpaint_full_res": "repaint only the part around the mask, at the full size",
         "inpaint_mode": "masked, or differential: shades of the mask say how much changes; default masked",
         "outpaint_fill": "noise or edge; default noise",
         "x_type": _AXIS, "y_type": _AXIS, "z_type": _AXIS, "x_values": _VALUES, "y_values": _VALUES,
         "z_values": _VALUES, "draw_legend": "without the values beside the grid",
         "include_lone_images": "the pictures of the cells, too",
         "include_sub_grids": "the grid of each value of Z, too",
         "no_fixed_seeds": "a random seed for each cell, where the seed is -1",
         "vary_seeds_x": "count seeds up along X", "vary_seeds_y": "count seeds up along Y",
         "vary_seeds_z": "count seeds up along Z", "margin_size": "pixels between cells; default 0",
         "hr_resize_x": "pixels; default: by --hires-scale", "hr_resize_y": "pixels; default: by --hires-scale"}


# Pictures that go with those to begin from, by field.
_BESIDE = {
    "mask": ("--mask", "white where to repaint"),
    "latent_mask": ("--latent-mask", "white where to repaint in the latent, while --mask says where that is shown"),
    "depth_map": ("--depth-map", "light where the other is near, for depth models"),
}


@dataclass(frozen=True)
class Txt2ImgArguments:
    """The arguments of ``txt2img`` or ``img2img``: ``fields`` of a request, checked ``settings``, where to save.

    ``out`` is a file, a folder or empty for the usual output folder. ``images`` are paths, and ``beside`` those of the
    pictures that go with them, by field.
    """

    fields: Mapping[str, Any]
    out: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    images: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)

    def request(
        self, settings: Settings, images: tuple[str, ...] = (), beside: Mapping[str, str] | None = None
    ) -> Request:
        """Return the request these arguments ask for under ``settings``, from stored pictures.

        Raises ``InvalidRequest`` as ``check``.
        """
        fields: dict[str, Any] = {**self.fields, **(beside or {})}
        return check(Request(**fields, settings=with_values(settings, dict(self.settings)), init_images=images))


@dataclass(frozen=True)
class InspectArguments:
    """Which model to look at: ``kind`` empty for any; ``check`` reads all of it, ``as_json`` prints plain JSON."""

    name: str
    kind: str = ""
    check: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Invocation:
    """One start of the program. ``rest`` goes to pytest; ``warnings`` are lines to show once.

    ``word`` is what a command on extensions is about, ``yes`` that it asks nothing. ``work`` is on model files.
    """

    command: str
    flags: Flags
    txt2img: Txt2ImgArguments | None = None
    inspect: InspectArguments | None = None
    work: Work | None = None
    rest: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    word: str = ""
    yes: bool = False


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ,
          windows: bool = sys.platform == "win32") -> Invocation:
    """Return what ``arguments`` ask for, with those of ``COMMANDLINE_ARGS`` in front.

    A command is the first word. ``--help`` and ``--version`` print and exit. Raises ``InvalidRequest`` for unknown or
    malformed arguments (unknown ones are warnings if ``IGNORE_CMD_ARGS_ERRORS`` is set) and ``Forbidden`` if others
    could reach the program without an account.
    """
    command, words = (arguments[0], arguments[1:]) if arguments[:1] and arguments[0] in COMMANDS else (SERVE, arguments)
    defaults = split(environ.get("COMMANDLINE_ARGS", ""), windows)
    if command == TEST:
        return _parse_test(words, defaults)
    parser = _parser(command)
    values, unknown = parser.parse_known_args([*defaults, *words])
    warnings = explain(values.foreign)
    if unknown:
        complaint = _unknown(unknown, parser)
        if "IGNORE_CMD_ARGS_ERRORS" not in environ:
            raise complaint
        warnings += (str(complaint),)
    flags = flags_from(values)
    if command in MAKING:
        return Invocation(command, flags, txt2img=_arguments(command, values), warnings=warnings)
    if command in WORKS:
        return Invocation(command, flags, work=work_from(command, values), warnings=warnings)
    if command == INSPECT:
        asked = InspectArguments(values.word, values.kind, values.check, values.as_json)
        return Invocation(command, flags, inspect=asked, warnings=warnings)
    if command in ON_EXTENSIONS:
        return Invocation(command, flags, warnings=warnings, word=values.word, yes=values.yes)
    flags = dataclasses.replace(flags, accounts=read_accounts(flags))
    check_exposure(flags)
    return Invocation(command, flags, warnings=warnings)


def split(text: str, windows: bool) -> list[str]:
    """Return the words of ``text`` as a shell splits them; on Windows a backslash is part of a path.

    Raises ``InvalidRequest`` if a quotation mark is not closed.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = "" if windows else "\\"
    try:
        return list(lexer)
    except ValueError as error:
        raise InvalidRequest(f"COMMANDLINE_ARGS cannot be read: {error}.") from None


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that every message is shown in one way."""

    def error(self, message: str) -> Any:
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", f"`{self.prog} --help` lists what there is.")


def _parser(command: str) -> argparse.ArgumentParser:
    name = "webui.py" if command == SERVE else f"webui.py {command}"
    needed = {TXT2IMG: "--prompt TEXT ", IMG2IMG: "--image PATH --prompt TEXT ",
              **{each: f"{word} " for each, (word, _) in _WORD.items()}}
    usage = f"{name} {needed.get(command, '')}[argument ...]"
    parser = _Parser(prog=name, usage=usage, description=_SUMMARY[command], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    if command in MAKING:
        _add_txt2img(parser.add_argument_group("picture"))
        _add_fields(parser.add_argument_group("X/Y/Z plot"), _GRID, Grid())
    if command == TXT2IMG:
        _add_fields(parser.add_argument_group("hires fix"), _HIRES)
    if command == IMG2IMG:
        _add_sources(parser.add_argument_group("picture to begin from"))
    if command in _WORD:
        parser.add_argument("word", metavar=_WORD[command][0], help=_WORD[command][1])
    if command in WORKS:
        add_work(parser, command)
    if command == INSPECT:
        _add_inspection(parser)
    if command in ON_EXTENSIONS:
        parser.add_argument("--yes", action="store_true", help="show what it asks for and go on")
    add_flags(parser)
    add_foreign_flags(parser)
    return parser


def _add_inspection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", default="", metavar="KIND", help="checkpoint, lora, vae, ...; default: any")
    parser.add_argument("--check", action="store_true", help="read all of it: hashes, NaN and infinity")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _add_txt2img(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompt", required=True, metavar="TEXT")
    group.add_argument("--negative-prompt", default=_DEFAULTS.negative_prompt, metavar="TEXT")
    _add_fields(group, _FIRST_PASS)
    group.add_argument("--merge", default="", metavar="RECIPE",
                       help='a merge to try out in place of a model: {"model_a": "a", "model_b": "b", "alpha": 0.5}')
    group.add_argument("--out", default="", metavar="PATH", help="file or folder; default: the usual output folder")
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                       help="a setting for these pictures, such as CLIP_stop_at_last_layers=2; may be repeated")


def _add_sources(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", action="append", required=True, metavar="PATH", dest="images",
                       help="a picture; repeat it for each of a batch")
    for name, (flag, text) in _BESIDE.items():
        group.add_argument(flag, default="", metavar="PATH", dest=name, help=f"a picture that is {text}")
    _add_fields(group, _IMAGE)
    group.set_defaults(**_IMAGE_DEFAULTS)


def _add_fields(group: argparse._ArgumentGroup, flags: Mapping[str, str], defaults: Request | Grid = _DEFAULTS) -> None:
    """Add an argument for each field: a switch, one that may be repeated, or one of its default's type."""
    for name, flag in flags.items():
        default = getattr(defaults, name)
        if isinstance(default, bool):
            group.add_argument(flag, action=f"store_{str(not default).lower()}", dest=name, help=_HELP[name])
        elif isinstance(default, tuple):
            group.add_argument(flag, action="append", default=[], dest=name, metavar="NAME", help=_HELP[name])
        else:
            word = "TEXT" if name.endswith(("prompt", "_values")) else "NAME"
            metavar = {int: "N", float: "X", str: word}[type(default)]
            group.add_argument(flag, type=type(default), default=default, dest=name, metavar=metavar,
                               help=_HELP.get(name) or f"default {_meaning(name, default)}")


def _meaning(name: str, default: Any) -> str:
    """Return what the default of a field stands for."""
    if name.startswith("hr_") and not default:
        return "as the first pass"
    return str(default) if default != "" else _WHERE_EMPTY[name]


def _arguments(command: str, values: argparse.Namespace) -> Txt2ImgArguments:
    more = _HIRES if command == TXT2IMG else _IMAGE
    names = ("prompt", "negative_prompt", *_FIRST_PASS, *more)
    fields = {name: getattr(values, name) for name in names} | {"styles": tuple(values.styles), "kind": command}
    fields["grid"] = Grid(**{name: getattr(values, name) for name in _GRID})
    fields["merge"] = parse_recipe(values.merge) if values.merge else None
    settings = tuple(parse_setting(text) for text in values.settings)
    if command == TXT2IMG:
        arguments = Txt2ImgArguments(fields, values.out, settings)
        arguments.request(Settings())
        return arguments
    fields["mask_blur_y"] = fields["mask_blur_x"]
    arguments = Txt2ImgArguments(fields, values.out, settings, tuple(values.images),
                                 {name: getattr(values, name) for name in _BESIDE if getattr(values, name)})
    arguments.request(Settings(), tuple(_STORED for _ in values.images), dict.fromkeys(arguments.beside, _STORED))
    return arguments


def parse_recipe(text: str) -> Recipe:
    """Return the recipe that a JSON object gives; raises ``InvalidRequest``."""
    try:
        return codec.decode(Recipe, json.loads(text), where="--merge")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--merge is no JSON: {error}.") from None


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and the typed, checked value of ``name=value``; raises ``InvalidRequest``."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise InvalidRequest(f"--set {text} is not of the form name=value.")
    known = Settings.__dataclass_fields__
    if name not in known:
        raise InvalidRequest(f"There is no setting {name!r}.", _near(name, known))
    return name, check_value(name, _typed(name, value.strip(), type(known[name].default)))


def _typed(name: str, value: str, kind: type) -> Any:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if kind is tuple:
        return tuple(item.strip() for item in value.split(",") if item.strip())
    try:
        return words[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        raise InvalidRequest(f"{name}: {value!r} is not of type {kind.__name__}.") from None


def _parse_test(words: Sequence[str], defaults: list[str]) -> Invocation:
    usage = "webui.py test [argument ...]"
    parser = _Parser(prog="webui.py test", usage=usage, description=_SUMMARY[TEST], allow_abbrev=False)
    add_flags(parser, (ENVIRONMENT,))
    from_defaults, _ = parser.parse_known_args(defaults)
    values, rest = parser.parse_known_args(words, namespace=from_defaults)
    return Invocation(TEST, flags_from(values), rest=tuple(rest))


def _unknown(unknown: list[str], parser: argparse.ArgumentParser) -> InvalidRequest:
    flags = [word for word in unknown if word.startswith("-")]
    first = (flags or unknown)[0].partition("=")[0]
    if first in COMMANDS:
        return InvalidRequest(f"The command {first} comes first.", f"Write `webui.py {first} ...`.")
    known = [name for action in parser._actions for name in action.option_strings]
    hint = _near(first, known) or "`webui.py --help` lists what there is."
    return InvalidRequest(f"There is no argument {first}.", hint)


def _near(name: str, known: Iterable[str]) -> str:
    by_lower_case = {item.lower(): item for item in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower_case), n=1, cutoff=0.6)
    return f"Did you mean {by_lower_case[matches[0]]}?" if matches else ""
