"""Archives that lie about what they hold, or hold more than is allowed."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import PurePosixPath

import pytest

from modules.core.errors import InvalidRequest
from modules.launcher.archives import unpacked, without_common_folder
from modules.launcher.extension_files import Limits

MIB = 1024 * 1024
LIMITS = Limits(size=MIB, count=10)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def claiming(archive: bytes, size: int, crc: int) -> bytes:
    """Return the archive of one entry, whose directory says that the entry is of this size and checksum."""
    at = archive.index(b"PK\x01\x02")
    packed = archive[at + 20:at + 24]
    return archive[:at + 16] + struct.pack("<I", crc) + packed + struct.pack("<I", size) + archive[at + 28:]


def tarred(entries: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def peak(call) -> int:
    """Return the most memory that ``call`` held at a time, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(data: bytes, message: str, limits: Limits = LIMITS) -> None:
    with pytest.raises(InvalidRequest, match=message):
        unpacked(data, limits)


@pytest.mark.parametrize("data", [
    zipped({"a/plugin.py": b"one", "a/b/c": b"two"}, zipfile.ZIP_STORED),
    zipped({"a/": b"", "a/plugin.py": b"one", "a\\b\\c": b"two"}),
    tarred([(tarfile.TarInfo("a/plugin.py"), b"one"), (tarfile.TarInfo("a/b/c"), b"two")]),
    tarred([(tarfile.TarInfo("a/plugin.py"), b"one"), (tarfile.TarInfo("a/b/c"), b"two")], "w:gz"),
], ids=["stored", "deflated", "tar", "tar.gz"])
def test_zip_and_tar_are_read_relative_to_the_wanted_file(data):
    files = without_common_folder(unpacked(data, LIMITS), "plugin.py")
    assert sorted(files) == [(PurePosixPath("b/c"), b"two"), (PurePosixPath("plugin.py"), b"one")]


def test_names_beyond_a_header_and_a_tar_that_holds_a_zip_are_read():
    name = "ä" * 100 + "/" + "b" * 200
    inner = zipped({"x": b"y"}, zipfile.ZIP_STORED)
    files = unpacked(tarred([(tarfile.TarInfo(name), b"one"), (tarfile.TarInfo("z.zip"), inner)]), LIMITS)
    assert files == [(PurePosixPath(name), b"one"), (PurePosixPath("z.zip"), inner)]


def test_a_false_size_makes_no_entry_unpack_at_once():
    large = zipped({"plugin.py": bytes(16 * MIB)})
    false = claiming(large, 10, zlib.crc32(bytes(10)))
    assert peak(lambda: unpacked(false, LIMITS)) < MIB
    assert unpacked(false, LIMITS) == [(PurePosixPath("plugin.py"), bytes(10))]
    refused(large, "more than 10 files or 1,048,576 bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_all_at_once_are_refused(method):
    refused(zipped({"plugin.py": b"x"}, method), "plugin.py is encrypted, or compressed in an unusual way")


def test_entries_are_counted_before_they_are_listed():
    refused(zipped({f"{number}/": b"" for number in range(11)}), "more than 10 files")
    folders = [(tarfile.TarInfo(str(number)), b"") for number in range(11)]
    for folder, _ in folders:
        folder.type = tarfile.DIRTYPE
    refused(tarred(folders), "more than 10 files")
    many = zipped({"a": b""})
    at = many.index(b"PK\x01\x02")
    entry = many[at:many.index(b"PK\x05\x06")]
    end = many[many.index(b"PK\x05\x06"):]
    told = struct.pack("<HHII", 0xffff, 0xffff, 100_000 * len(entry), at)
    crowd = many[:at] + entry * 100_000 + end[:8] + told + end[20:]
    assert len(zipfile.ZipFile(io.BytesIO(crowd)).infolist()) == 100_000
    assert peak(lambda: refused(crowd, "more than 10 files")) < MIB


def test_what_an_entry_says_of_itself_is_bounded():
    entry = tarfile.TarInfo("plugin.py")
    entry.pax_headers = {"comment": "x" * 16 * MIB}
    packed = gzip.compress(tarred([(entry, b"")]), 1)
    assert peak(lambda: refused(packed, "says too much of itself")) < 4 * MIB
    chain = b"".join(tarred([(tarfile.TarInfo("ä"), b"")])[:1024] for _ in range(5000))
    refused(chain, "no archive that can be read")


@pytest.mark.parametrize(("data", "message"), [
    (b"", "no archive"), (b"PK", "no archive"), (b"no archive at all" * 100, "no archive"),
    (lzma.compress(tarred([(tarfile.TarInfo("plugin.py"), b"x")])), "no archive"),
    (gzip.compress(tarred([(tarfile.TarInfo("plugin.py"), b"x")]))[:60], "no archive"),
    (tarred([(tarfile.TarInfo("plugin.py"), b"x" * 5000)])[:2000], "no archive"),
    (zipped({"plugin.py": b"x" * 5000})[:-30], "no archive"),
    (zipped({"a/../../b": b""}), "leads elsewhere"), (zipped({"/b": b""}), "leads elsewhere"),
    (zipped({"b": b""}).replace(b"b", b"\0"), "leads elsewhere"),
    (zipped({"c:b": b""}), "leads elsewhere"), (zipped({"a\\..\\..\\b": b""}), "leads elsewhere"),
    (zipped({"a\u202e": b""}), "cannot be shown"),
], ids=lambda value: value if isinstance(value, str) else "archive")
def test_what_is_no_archive_or_leads_elsewhere_is_refused(data, message):
    refused(data, message)


def test_damage_within_is_found():
    data = bytearray(gzip.compress(tarred([(tarfile.TarInfo("plugin.py"), bytes(range(256)) * 40)])))
    data[40:60] = b"\xff" * 20
    refused(bytes(data), "no archive")
    data = bytearray(zipped({"plugin.py": bytes(range(256)) * 40}))
    data[60:80] = b"\xff" * 20
    refused(bytes(data), "no archive")
    data = bytearray(zipped({"plugin.py": b"x"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    refused(bytes(data), "encrypted")


def test_links_and_holes_are_refused():
    link = zipfile.ZipInfo("passwords")
    link.external_attr = 0o120777 << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(data.getvalue(), "passwords is a link")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        entry = tarfile.TarInfo("passwords")
        entry.type, entry.linkname = kind, "/etc/passwd"
        refused(tarred([(entry, b"")]), "passwords is no plain file")
    hole = tarfile.TarInfo("hole")
    hole.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(MIB - 1)}
    refused(tarred([(hole, b"x")]), "hole is no plain file")
