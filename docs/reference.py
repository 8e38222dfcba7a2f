"""Writes docs/settings.md and docs/flags.md from the code; `python -m docs.reference` brings them up to date."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from modules.core.settings import SettingInfo, Settings, setting_infos
from modules.launcher.flags import FlagInfo, flag_infos
from modules.launcher.foreign_flags import REASONS

FOLDER = Path(__file__).resolve().parent
LISTS = {"checkpoints": "a checkpoint's title", "vaes": "a VAE's name, `Automatic` or `None`", "samplers": "samplers",
         "upscalers": "an upscaler's name"}

SETTINGS_INTRO = """# Settings

Written by `python -m docs.reference`; do not edit. Names are those of `config.json`, of `/sdapi/v1/options` and of
`--set name=value`. *Per picture* settings can also be set for one request (`override_settings`). *Not by the API*
means that only the page changes them. Where an infotext key is given, a value that differs from the default is written
beside the picture under it.
"""

FLAGS_INTRO = """# Flags

Written by `python -m docs.reference`; do not edit. `python webui.py --help` says the same. Flags may also stand in the
environment variable `COMMANDLINE_ARGS`; those on the command line win.
"""

COMMAND = """
## For `python webui.py txt2img`

`--prompt` (required), `--negative-prompt`, `--style`, `--steps`, `--sampler`, `--schedule`, `--seed`, `--width`,
`--height`, `--cfg-scale`, `--batch-size`, `--batch-count`, `--tiling`, `--model`, `--vae`, `--refiner`,
`--refiner-switch-at`, `--out` and `--set NAME=VALUE`; `--style` and `--set` may be repeated. Flags of folders and of
the engine apply too.

`--hires` makes each picture again, larger: `--hires-scale` times, or as `--hires-width` and `--hires-height` say, with
`--hires-upscaler`, `--hires-steps` and `--denoising-strength`. `--hires-checkpoint`, `--hires-sampler`,
`--hires-schedule`, `--hires-cfg-scale`, `--hires-prompt` and `--hires-negative-prompt` are those of the first pass
unless they are given.
"""

FOREIGN = """
## Accepted without effect

Start scripts written for AUTOMATIC1111's web UI and its relatives keep working: each of these is answered with one line
that says why. Anything else that is unknown is an error, unless `IGNORE_CMD_ARGS_ERRORS` is set.
"""


def settings_page() -> str:
    """Return docs/settings.md."""
    infos = setting_infos()
    names = sorted(infos, key=lambda name: list(_sections(infos)).index(infos[name].section))
    parts = [SETTINGS_INTRO]
    for section, group in groupby(names, key=lambda name: infos[name].section):
        rows = [(f"`{name}`", _setting_text(infos[name]), _shown(_default(name)), _values(name, infos[name]))
                for name in group]
        parts.append(f"\n## {section}\n\n{_table(('name', 'meaning', 'default', 'values'), rows)}")
    return "".join(parts)


def flags_page() -> str:
    """Return docs/flags.md."""
    infos = flag_infos()
    parts = [FLAGS_INTRO]
    for group, names in groupby(infos, key=lambda name: infos[name].group):
        rows = [(_flag_name(name, infos[name]), _flag_text(infos[name])) for name in names]
        parts.append(f"\n## {group.capitalize()}\n\n{_table(('flag', 'meaning'), rows)}")
    foreign = [(" ".join(f"`{word}`" for word in text.split() if word != "V"), reason)
               for reason, text in REASONS.items()]
    return "".join([*parts, COMMAND, FOREIGN, "\n", _table(("flags", "why"), foreign)])


PAGES = {"settings.md": settings_page, "flags.md": flags_page}


def main() -> None:
    """Write both pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), "utf-8")


def _sections(infos: Mapping[str, SettingInfo]) -> dict[str, None]:
    return dict.fromkeys(info.section for info in infos.values())


def _default(name: str) -> Any:
    return getattr(Settings(), name)


def _setting_text(info: SettingInfo) -> str:
    notes = [info.help, "*Per picture.*" if info.per_picture else "", "*Not by the API.*" if info.restricted else "",
             f"Infotext: `{info.infotext}`." if info.infotext else ""]
    return " ".join([f"{info.label}.", *filter(None, notes)])


def _values(name: str, info: SettingInfo) -> str:
    if isinstance(info.choices, str):
        return LISTS[info.choices]
    if info.choices:
        return ", ".join(map(_shown, info.choices))
    if isinstance(_default(name), bool):
        return f"{_shown(True)}, {_shown(False)}"
    if info.minimum is not None and info.maximum is not None:
        return f"{info.minimum:,} to {info.maximum:,}"
    return "names" if isinstance(_default(name), tuple) else "text"


def _shown(value: Any) -> str:
    """Return a value as ``config.json`` has it."""
    return f"`{json.dumps(value)}`"


def _flag_name(name: str, info: FlagInfo) -> str:
    names = [f"--{name.replace('_', '-')}", *info.aliases]
    value = "{" + ",".join(info.choices) + "}" if info.choices else info.metavar
    return ", ".join(f"`{word} {value}`" if value else f"`{word}`" for word in names)


def _flag_text(info: FlagInfo) -> str:
    return info.help[:1].upper() + info.help[1:] + "."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
