"""Addresses of extensions, and what is fetched from them into a folder."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from modules.core.errors import DarkroomError, Forbidden, InvalidRequest, NotFound
from modules.launcher.extension_files import Limits
from modules.launcher.extension_source import Source, fetch, parse_source


@pytest.mark.parametrize(("text", "source"), [
    ("https://example.org/a.git", Source("https://example.org/a.git")),
    ("git@example.org:a/b", Source("git@example.org:a/b")),
    ("ssh://git@example.org/a/b", Source("ssh://git@example.org/a/b")),
    ("/a/b@c/d.zip", Source("/a/b@c/d.zip")),
    ("https://example.org/@a/b", Source("https://example.org/@a/b")),
    (f" https://example.org/a@{'A' * 40}\n", Source("https://example.org/a", "a" * 40)),
])
def test_addresses(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", " ", "--upload-pack=touch x", " -x", "a\0b", "a\nb", "\ud800", "a" * 2001])
def test_what_is_no_address(text):
    with pytest.raises(InvalidRequest, match="is no address"):
        parse_source(text)


@pytest.mark.parametrize("address", [
    "https://secret@example.org/a.git", "https://me:secret@example.org/a.zip", "HTTPS://me:secret@example.org",
    "ssh://me:secret@example.org/a", "https://example.org\\@secret@127.0.0.1/a", "file://secret@host/a",
    f"https://me:secret@example.org/a@{'a' * 40}", "x::https://secret@example.org/a",
])
def test_credentials_are_refused_and_not_repeated(address):
    with pytest.raises(InvalidRequest, match="holds a user's name or a password") as refused:
        parse_source(address)
    assert "secret" not in str(refused.value)


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/plugin.py", b"x" * 100)
    return tmp_path / "a.zip"


def test_an_archive_is_unpacked(archive, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    assert fetch(Source(str(archive)), folder) == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert [path.name for path in folder.iterdir()] == ["plugin.py"]


@pytest.mark.parametrize(("address", "error", "message"), [
    ("http://example.org/a.zip", Forbidden, "no address of https"), ("file:///a.zip", Forbidden, "no address of https"),
    ("/nowhere/a.zip", NotFound, "cannot be read: No such file or directory"),
    ("~nobody-of-this-name/a.zip", NotFound, "cannot be read"),
])
def test_what_cannot_be_read(tmp_path, address, error, message):
    with pytest.raises(error, match=message):
        fetch(Source(address), tmp_path)


def test_limits_hold_for_the_archive_and_for_what_is_in_it(archive, tmp_path):
    for limits in (Limits(size=archive.stat().st_size - 1), Limits(size=archive.stat().st_size, count=0)):
        with pytest.raises(DarkroomError, match="It has more than"):
            fetch(Source(str(archive)), tmp_path, limits=limits)


@pytest.mark.parametrize("address", ["https://127.0.0.1/a.zip", "https://localhost/a.git", "HTTPS://[::1]/a"])
def test_from_afar_this_machine_is_not_asked(tmp_path, address):
    with pytest.raises(Forbidden, match="in a local network"):
        fetch(Source(address), tmp_path, from_afar=True)
