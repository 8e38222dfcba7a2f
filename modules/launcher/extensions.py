"""Extensions: begin one, install one from an address, bring one up to date; for the command line and the page."""

from __future__ import annotations

import json
import keyword
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.launcher import extension_template, pip
from modules.launcher.access import host, is_loopback
from modules.launcher.extension_offer import NAME, Offer, examine
from modules.launcher.extension_source import Source, fetch, parse_source
from modules.launcher.flags import Flags
from modules.launcher.packages import CONSTRAINTS, Step
from modules.launcher.terminal import say

RECORD = ".darkroom-source.json"
LOG = "pip-extensions.log"

Ask = Callable[[Offer], bool]
Run = Callable[[Step, Path], None]


def begin(root: Path, flags: Flags, name: str) -> Path:
    """Write a working extension called ``name`` with its test, and return its folder.

    Raises ``InvalidRequest`` where the name is none or taken.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidRequest(f"{name[:100]!r} cannot be an extension's name.",
                             "Use lower-case letters, digits and underscores, a letter first.")
    folder, test = places(root, flags) / name, root / "tests" / "extensions" / name / "test_plugin.py"
    if folder.exists() or test.exists():
        raise InvalidRequest(f"{folder if folder.exists() else test} exists already.", "Choose another name.")
    for path, text in ((folder / "plugin.py", extension_template.plugin(name)),
                       (test, extension_template.test(name, folder))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def places(root: Path, flags: Flags) -> Path:
    """Return the folder that extensions are installed in."""
    return (Path(flags.data_dir).expanduser().absolute() if flags.data_dir else root) / "extensions"


def install(root: Path, flags: Flags, address: str, ask: Ask, run: Run = pip.run,
            from_afar: bool = False) -> Offer | None:
    """Install the extension at ``address``; ``ask`` sees what it is and asks for, and may decline (None).

    Packages are installed under the program's own constraints, so none of its versions changes. Nothing is in the
    folder of extensions before everything has succeeded. ``from_afar`` is for ``fetch``. Raises ``Forbidden`` where
    others can reach the program.
    """
    check_allowed(flags)
    return _put(root, flags, parse_source(address), ask, run, "", from_afar)


def update(root: Path, flags: Flags, name: str, ask: Ask, run: Run = pip.run, from_afar: bool = False) -> Offer | None:
    """Bring the extension ``name`` to what its address has now; None where that is so already, or it was declined."""
    check_allowed(flags)
    known = origin(places(root, flags) / name) if NAME.fullmatch(name) else None
    if known is None:
        raise NotFound(f"{name[:100]!r} was not installed from an address.",
                       "Extensions of your own are yours to change.")
    return _put(root, flags, Source(known.address), lambda offer: offer.revision != known.revision and ask(offer), run,
                name, from_afar)


def origin(folder: Path) -> Source | None:
    """Return where the extension in ``folder`` was installed from, and at which revision; None for one of one's own."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        return parse_source(f"{record['address']}@{record['revision']}")
    except (OSError, ValueError, KeyError, TypeError, InvalidRequest):
        return None


def is_exposed(flags: Flags) -> bool:
    """Return whether others can reach the program."""
    return flags.share or not is_loopback(host(flags))


def check_allowed(flags: Flags) -> None:
    """Raise ``Forbidden`` where others can reach the program and nobody said that they may bring code."""
    if flags.enable_insecure_extension_access or not is_exposed(flags):
        return
    raise Forbidden("Extensions are code, and with --listen, --share or --server-name others reach the program.",
                    "Leave those out, or add --enable-insecure-extension-access.")


def _put(root: Path, flags: Flags, source: Source, ask: Ask, run: Run, replaced: str, from_afar: bool) -> Offer | None:
    directory = places(root, flags)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as work:
        fetched = Path(work, "fetched")
        fetched.mkdir()
        offer = examine(fetched, fetch(source, fetched, from_afar))
        target = directory / offer.id
        if replaced and offer.id != replaced:
            raise InvalidRequest(f"{source.address} is now the extension {offer.id!r}, not {replaced!r}.")
        if not replaced and (target.exists() or (root / "extensions" / offer.id).exists()):
            raise InvalidRequest(f"There is an extension {offer.id!r} already.",
                                 f"`webui.py update-extension {offer.id}` renews it.")
        if not ask(offer):
            return None
        if offer.packages:
            # As words, never as the file that was fetched: pip would read it in an encoding that the file itself names.
            run(Step(f"Installing what {offer.name} asks for",
                     ("pip", "install", "--no-input", "-c", str(root / CONSTRAINTS), "--", *offer.packages)),
                directory / LOG)
        record = {"address": source.address, "revision": offer.revision}
        (fetched / RECORD).write_text(json.dumps(record), "utf-8")
        _swap(fetched, target, Path(work, "before"))
    return offer


def _swap(new: Path, target: Path, before: Path) -> None:
    """Put ``new`` in the place of ``target``, which comes back where that fails."""
    if target.exists():
        shutil.move(target, before)
    try:
        shutil.move(new, target)
    except OSError:
        if before.exists():
            shutil.move(before, target)
        raise


def show(offer: Offer) -> None:
    """Say what an extension is and what it asks for."""
    say(f"{offer.name} {offer.version} ({offer.id}): {offer.description}")
    say(f"  revision  {offer.revision}")
    say(f"  packages  {', '.join(offer.packages) or 'none'}")
    say("  It is code that can do whatever you can. Install it only if you trust where it comes from.")


def confirm(offer: Offer) -> bool:
    """Show ``offer`` and return whether the answer at the terminal is yes."""
    show(offer)
    try:
        return input("Install it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def confirmed(offer: Offer) -> bool:
    """Show ``offer`` and return True: ``--yes`` was given."""
    show(offer)
    return True


def carry_out(root: Path, flags: Flags, command: str, word: str, yes: bool) -> int:
    """Do what one of the commands below says; returns the exit status."""
    if command == "new-extension":
        say(f"Written: {begin(root, flags, word)}. Try it: python webui.py test tests/extensions/{word}")
        return 0
    act = install if command == "install-extension" else update
    offer = act(root, flags, word, confirmed if yes else confirm)
    say("Nothing was changed." if offer is None else f"{offer.name} runs from the next start on.")
    return 0
