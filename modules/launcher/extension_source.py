"""Where extensions come from: a git address or an archive, fetched into a folder without running anything of it."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import InvalidRequest, NotFound
from modules.launcher.archives import unpacked, without_common_folder
from modules.launcher.downloads import Check, check_https, check_public, download, is_https
from modules.launcher.extension_files import LIMITS, Limits, put
from modules.launcher.extension_offer import PLUGIN
from modules.launcher.git import Git

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
MAX_ADDRESS = 2_000


@dataclass(frozen=True)
class Source:
    """An address and the revision wanted: a commit of git, the sha256 of an archive, or empty for what is there now."""

    address: str
    revision: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether the address is that of an archive."""
        return self.address.lower().endswith(ARCHIVES)


def parse_source(text: str) -> Source:
    """Return the source that ``ADDRESS`` or ``ADDRESS@REVISION`` names; the revision is in hexadecimal digits.

    Raises ``InvalidRequest`` where that is none, or one with a password: addresses are shown and kept.
    """
    text = text.strip()
    found = re.fullmatch(r"(?P<address>.+?)(?:@(?P<revision>[0-9a-fA-F]{7,64}))?", text)
    if found is None or text.startswith("-") or len(text) > MAX_ADDRESS or not text.isprintable():
        raise InvalidRequest(f"{text[:200]!r} is no address.", "Give a git address, or an archive's path or address.")
    if _holds_credentials(found["address"]):
        raise InvalidRequest("The address holds a user's name or a password, and addresses are shown.",
                             "Leave that out: git asks its credential helper; or use an address of ssh.")
    return Source(found["address"], (found["revision"] or "").lower())


def _holds_credentials(address: str) -> bool:
    """Return whether ``address`` has more before its host than the user of ssh, which is no secret."""
    scheme, _, rest = address.rpartition("://")
    user, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    return bool(scheme and at) and (scheme.lower() != "ssh" or ":" in user)


def fetch(source: Source, folder: Path, from_afar: bool = False, limits: Limits = LIMITS) -> str:
    """Put what ``source`` has into ``folder``, which is empty, and return its full revision.

    Where somebody asks ``from_afar``, addresses of https lead to the public internet alone. Raises ``DarkroomError``
    where it cannot be had, is not what was pinned, has paths that lead elsewhere, or is larger than ``limits``.
    """
    guarded = from_afar and is_https(source.address)
    return (_fetch_archive if source.is_archive else _fetch_git)(source, folder, guarded, limits)


def _fetch_git(source: Source, folder: Path, guarded: bool, limits: Limits) -> str:
    if source.revision and len(source.revision) not in (40, 64):
        raise InvalidRequest(f"{source.revision} is not a whole commit.", "Give all of its 40 digits.")
    if guarded:
        check_public(source.address)
    with tempfile.TemporaryDirectory(dir=folder.parent) as repository:
        revision, files = Git(Path(repository), limits, guarded).fetch(source.address, source.revision)
    if not revision.startswith(source.revision):
        raise InvalidRequest(f"{source.address} gave {revision}, not {source.revision}.", "Check the commit.")
    put(files, folder)
    return revision


def _fetch_archive(source: Source, folder: Path, guarded: bool, limits: Limits) -> str:
    data = _read(source.address, check_public if guarded else check_https, limits)
    revision = hashlib.sha256(data).hexdigest()
    if not revision.startswith(source.revision):
        raise InvalidRequest(f"{source.address} has the sha256 {revision}, not {source.revision}.",
                             "It was changed; look at what it is before you take it.")
    put(without_common_folder(unpacked(data, limits), PLUGIN), folder)
    return revision


def _read(address: str, check: Check, limits: Limits) -> bytes:
    if "://" in address:
        return download(address, limits.size, check)
    try:
        with Path(address).expanduser().open("rb") as file:
            data = file.read(limits.size + 1)
    except (OSError, RuntimeError) as error:
        raise NotFound(f"{address} cannot be read: {getattr(error, 'strerror', None) or error}.",
                       "Check the address.") from error
    if len(data) > limits.size:
        raise limits.exceeded()
    return data
