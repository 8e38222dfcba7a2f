"""Where extensions come from: a git address or an archive, fetched into a folder without running anything of it."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modules.core.errors import DarkroomError, InvalidRequest, NotFound

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
MAX_BYTES = 200 * 1024 * 1024
MAX_FILES = 10_000
TIMEOUT = 300.0
PLUGIN, REQUIREMENTS = "plugin.py", "requirements.txt"
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# A name, extras, versions and a marker: no option, address or path.
_PACKAGE = re.compile(r"[A-Za-z0-9][\w.\-]*(\[[\w,\- ]+\])?\s*([=<>!~][^/@:\\;]*)?(;[^/@\\]*)?")
# Nothing that an address or a repository says makes git run a program or ask a question.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.symlinks=false")


@dataclass(frozen=True)
class Source:
    """An address and the revision wanted: a commit of git, the sha256 of an archive, or empty for what is there now."""

    address: str
    revision: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether the address is that of an archive."""
        return self.address.lower().endswith(ARCHIVES)


@dataclass(frozen=True)
class Offer:
    """What a fetched extension says of itself, read without running it, and the packages that it asks for."""

    id: str
    name: str
    version: str
    description: str
    revision: str
    packages: tuple[str, ...]


def parse_source(text: str) -> Source:
    """Return the source that ``ADDRESS`` or ``ADDRESS@REVISION`` names; the revision is in hexadecimal digits."""
    found = re.fullmatch(r"(?P<address>.+?)(?:@(?P<revision>[0-9a-fA-F]{7,64}))?", text.strip())
    if found is None or found["address"].startswith("-"):
        raise InvalidRequest(f"{text[:200]!r} is no address.", "Give a git address, or an archive's path or address.")
    return Source(found["address"], (found["revision"] or "").lower())


def fetch(source: Source, folder: Path) -> str:
    """Put what ``source`` has into ``folder``, which is empty, and return its full revision.

    Raises ``DarkroomError`` where it cannot be had, is not what was pinned, or has paths that lead elsewhere.
    """
    return _fetch_archive(source, folder) if source.is_archive else _fetch_git(source, folder)


def _fetch_git(source: Source, folder: Path) -> str:
    if source.revision and len(source.revision) not in (40, 64):
        raise InvalidRequest(f"{source.revision} is not a whole commit.", "Give all of its 40 digits.")
    if shutil.which("git") is None:
        raise NotFound("There is no git on this machine.", "Install git, or give the address of an archive.")
    _git(folder, "init", "--quiet")
    _git(folder, "fetch", "--quiet", "--depth", "1", "--", source.address, source.revision or "HEAD")
    _git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    revision = _git(folder, "rev-parse", "HEAD").strip()
    if not revision.startswith(source.revision):
        raise DarkroomError(f"{source.address} gave {revision}, not {source.revision}.", "Check the commit.")
    shutil.rmtree(folder / ".git")
    return revision


def _git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        result = subprocess.run([*_GIT, *words], cwd=folder, env=environment, text=True, capture_output=True,
                                check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise DarkroomError("git takes too long.", "Check the address and the network.") from None
    if result.returncode:
        said = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DarkroomError(f"git {words[0]} failed: {said}", "Check the address, the commit and the network.")
    return result.stdout


def _fetch_archive(source: Source, folder: Path) -> str:
    data = _read(source.address)
    revision = hashlib.sha256(data).hexdigest()
    if not revision.startswith(source.revision):
        raise DarkroomError(f"{source.address} has the sha256 {revision}, not {source.revision}.",
                            "It was changed; look at what it is before you take it.")
    try:
        files = _zip_files(data) if zipfile.is_zipfile(io.BytesIO(data)) else _tar_files(data)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise DarkroomError(f"{source.address} is no archive: {error}.", "Download it again.") from error
    for name, content in _without_common_folder(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return revision


def _read(address: str) -> bytes:
    try:
        if address.startswith("https://"):
            with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - https alone
                data: bytes = answer.read(MAX_BYTES + 1)
        else:
            with Path(address).expanduser().open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        raise NotFound(f"{address} cannot be read: {error}.", "Check the address.") from error
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"{address} is larger than an extension may be, {MAX_BYTES:,} bytes.")
    return data


def _zip_files(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [item for item in archive.infolist() if not item.is_dir()]
        _check_size([item.file_size for item in members])
        links = [item.filename for item in members if stat.S_ISLNK(item.external_attr >> 16)]
        if links:
            raise ValueError(f"{links[0]} is a link")
        return [(item.filename, archive.read(item)) for item in members]


def _tar_files(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files: list[tuple[str, bytes]] = []
        sizes: list[int] = []
        for item in archive:
            if item.isdir():
                continue
            sizes.append(item.size)
            _check_size(sizes)
            content = archive.extractfile(item) if item.isfile() else None
            if content is None:
                raise ValueError(f"{item.name} is no plain file")
            files.append((item.name, content.read()))
        return files


def _check_size(sizes: Sequence[int]) -> None:
    if len(sizes) > MAX_FILES or sum(sizes) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes")


def _without_common_folder(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return ``files`` relative to the folder that ``plugin.py`` lies in, which archives often wrap in another."""
    for name, _ in files:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0]:
            raise DarkroomError(f"The archive has a path that leads elsewhere: {name[:200]!r}.")
    tops = sorted((PurePosixPath(name).parent for name, _ in files if PurePosixPath(name).name == PLUGIN),
                  key=lambda path: len(path.parts))
    top = tops[0] if tops else PurePosixPath()
    return [(str(PurePosixPath(name).relative_to(top)), content) for name, content in files
            if PurePosixPath(name).is_relative_to(top)]


def examine(folder: Path, revision: str) -> Offer:
    """Return what the extension in ``folder`` says of itself.

    Raises ``InvalidRequest`` where it is none, where its id is no folder's name, or where its requirements contain
    anything but names and versions of packages.
    """
    try:
        told = _constants((folder / PLUGIN).read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidRequest("It is no extension of Darkroom: there is no plugin.py.") from None
    except (SyntaxError, ValueError) as error:
        raise InvalidRequest(f"Its plugin.py is damaged: {error}.") from error
    if not NAME.fullmatch(told.get("id", "")):
        raise InvalidRequest(f"Its id {told.get('id', '')[:100]!r} is no name of a folder.")
    return Offer(told["id"], told.get("name", told["id"]), told.get("version", ""), told.get("description", ""),
                 revision, _packages(folder / REQUIREMENTS))


def _constants(source: str) -> dict[str, str]:
    """Return the texts that the first subclass of ``Plugin`` assigns to names."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Plugin") for base in node.bases):
            return {
                target.id: item.value.value for item in node.body if isinstance(item, ast.Assign)
                for target in item.targets
                if isinstance(target, ast.Name) and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            }
    return {}


def _packages(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text("utf-8").splitlines())
    wanted = tuple(line for line in lines if line)
    odd = [line for line in wanted if not _PACKAGE.fullmatch(line)]
    if odd:
        raise InvalidRequest(f"Its requirements.txt asks for {odd[0][:200]!r}, which is no package of an index.",
                             "Options, addresses and paths are refused.")
    return wanted
