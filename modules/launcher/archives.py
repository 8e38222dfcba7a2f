"""Archives that nobody vouches for, read in steps, so that none unpacks to more than is allowed."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from modules.core.errors import InvalidRequest
from modules.launcher.extension_files import Files, Limits, safe_path

ZIP, GZIP = b"PK", b"\x1f\x8b"
STEP = 64 * 1024
# Of one entry: its name, its extended attributes, padding, and the block that is read ahead.
TAR_HEADERS = 128 * 1024
_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)


def unpacked(data: bytes, limits: Limits) -> Files:
    """Return the plain files in a zip, a tar or a gzipped tar.

    Of a zip's methods only stored and deflated are read: the others of the standard library give out all they hold at
    once. Raises ``InvalidRequest`` where it is none of these, is damaged, has a link, or unpacks to more than
    ``limits``.
    """
    read = _zip_files if data.startswith(ZIP) else _tar_files
    try:
        return [(safe_path(name), content) for name, content in read(data, limits)]
    except _DAMAGED as error:
        raise InvalidRequest(f"It is no archive that can be read: {error}.", "Download it again.") from error


def without_common_folder(files: Files, wanted: str) -> Files:
    """Return ``files`` relative to the folder that ``wanted`` lies in, which archives often wrap in another."""
    tops = sorted((path.parent for path, _ in files if path.name == wanted), key=lambda path: len(path.parts))
    top = tops[0] if tops else PurePosixPath()
    return [(path.relative_to(top), content) for path, content in files if path.is_relative_to(top)]


def _zip_files(data: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    # An entry has this signature; opening the archive makes an object of each.
    limits.check(data.count(_ENTRY), 0)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        limits.check(len(entries), sum(entry.file_size for entry in entries))
        for entry in entries:
            if entry.filename.endswith("/"):
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise ValueError(f"{entry.filename} is a link")
            if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename} is encrypted, or compressed in an unusual way")
            with archive.open(entry) as file:
                yield entry.filename, _whole(file)


def _whole(file: IO[bytes]) -> bytes:
    """Return what is left of ``file``; the sizes in a zip may be false, and one large step would believe them."""
    return b"".join(iter(lambda: file.read(STEP), b""))


def _tar_files(data: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    raw = io.BytesIO(data)
    metered = _Metered(gzip.GzipFile(fileobj=raw) if data.startswith(GZIP) else raw, TAR_HEADERS)
    count = size = 0
    with tarfile.open(fileobj=metered, mode="r|") as archive:
        while entry := archive.next():
            count, size = count + 1, size + entry.size
            limits.check(count, size)
            if not entry.isdir():
                content = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
                if content is None:
                    raise ValueError(f"{entry.name} is no plain file")
                metered.left = entry.size + TAR_HEADERS
                yield entry.name, content.read()
            metered.left = TAR_HEADERS


class _Metered(io.RawIOBase):
    """What tarfile reads from: gives out no more than the ``left`` bytes that the next step of reading may take."""

    def __init__(self, file: io.BufferedIOBase, left: int) -> None:
        self._file = file
        self.left = left

    def read(self, size: int = -1) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ValueError("one of its entries says too much of itself")
        return self._file.read(size)
