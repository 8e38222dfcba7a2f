"""What is asked for on the command line: to serve, to make pictures, or to run the tests."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules import __version__
from modules.core.errors import InvalidRequest
from modules.core.request import Request, check
from modules.core.settings import Settings, check_value, with_values
from modules.launcher.access import check_exposure, read_accounts
from modules.launcher.flags import ENVIRONMENT, Flags, add_flags, flags_from
from modules.launcher.foreign_flags import add_foreign_flags, explain

SERVE, TXT2IMG, TEST = "serve", "txt2img", "test"
COMMANDS = (SERVE, TXT2IMG, TEST)

_SUMMARY = {
    SERVE: "Serve the page and the API. Other commands: txt2img, test (see `webui.py txt2img --help`).",
    TXT2IMG: "Make pictures without a server.",
    TEST: "Install what the tests need and run them; further words go to pytest.",
}
_DEFAULTS = Request()


@dataclass(frozen=True)
class Txt2ImgArguments:
    """The arguments of ``txt2img``: a request's fields, ``out`` for where to save, and checked ``settings``.

    ``out`` is a file, a folder or empty for the usual output folder.
    """

    prompt: str
    negative_prompt: str = _DEFAULTS.negative_prompt
    steps: int = _DEFAULTS.steps
    sampler: str = _DEFAULTS.sampler
    schedule: str = _DEFAULTS.schedule
    seed: int = _DEFAULTS.seed
    width: int = _DEFAULTS.width
    height: int = _DEFAULTS.height
    guidance_scale: float = _DEFAULTS.guidance_scale
    batch_size: int = _DEFAULTS.batch_size
    batch_count: int = _DEFAULTS.batch_count
    model: str = _DEFAULTS.model
    vae: str = _DEFAULTS.vae
    out: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    def request(self, settings: Settings) -> Request:
        """Return the request these arguments ask for under ``settings``; raises ``InvalidRequest`` as ``check``."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        del values["out"]
        return check(Request(**values | {"settings": with_values(settings, dict(self.settings))}))


@dataclass(frozen=True)
class Invocation:
    """One start of the program. ``rest`` goes to pytest; ``warnings`` are lines to show once."""

    command: str
    flags: Flags
    txt2img: Txt2ImgArguments | None = None
    rest: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
    if command == TXT2IMG:
        return Invocation(command, flags, txt2img=_txt2img_arguments(values), warnings=warnings)
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
    usage = f"{name} --prompt TEXT [argument ...]" if command == TXT2IMG else f"{name} [argument ...]"
    parser = _Parser(prog=name, usage=usage, description=_SUMMARY[command], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    if command == TXT2IMG:
        _add_txt2img(parser.add_argument_group("picture"))
    add_flags(parser)
    add_foreign_flags(parser)
    return parser


def _add_txt2img(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompt", required=True, metavar="TEXT")
    group.add_argument("--negative-prompt", default=_DEFAULTS.negative_prompt, metavar="TEXT")
    for name in ("steps", "seed", "width", "height", "batch-size", "batch-count"):
        default = getattr(_DEFAULTS, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default {default}")
    for name in ("sampler", "schedule", "model", "vae"):
        default = getattr(_DEFAULTS, name)
        group.add_argument(f"--{name}", default=default, metavar="NAME",
                           help=f"default {default}" if default else "default: what the settings say")
    group.add_argument("--cfg-scale", type=float, default=_DEFAULTS.guidance_scale, metavar="X", dest="guidance_scale",
                       help=f"default {_DEFAULTS.guidance_scale}")
    group.add_argument("--out", default="", metavar="PATH", help="file or folder; default: the usual output folder")
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                       help="a setting for these pictures, such as CLIP_stop_at_last_layers=2; may be repeated")


def _txt2img_arguments(values: argparse.Namespace) -> Txt2ImgArguments:
    names = {item.name for item in dataclasses.fields(Txt2ImgArguments)} - {"settings"}
    settings = tuple(parse_setting(text) for text in values.settings)
    arguments = Txt2ImgArguments(**{name: getattr(values, name) for name in names}, settings=settings)
    arguments.request(Settings())
    return arguments


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
