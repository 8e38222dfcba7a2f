"""Files that are always the old or the new."""

import os
import stat

import pytest

from modules.core.errors import DiskFull
from modules.library.writing import write_json, write_text, write_whole


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_cannot_be_written_leaves_the_old_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskFull, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_new_text_is_its_owners_and_an_old_file_keeps_its_readers(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "one\r\ntwo ß")
    assert (tmp_path / "new/a.txt").read_bytes() == "one\r\ntwo ß".encode()
    assert mode(tmp_path / "new/a.txt") == 0o600
    (tmp_path / "shared").touch(), (tmp_path / "shared").chmod(0o664)
    write_json(tmp_path / "shared", {"a": "ß"})
    assert (tmp_path / "shared").read_text("utf-8") == '{\n    "a": "ß"\n}' and mode(tmp_path / "shared") == 0o664


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskFull, match="file/below"):
        write_text(tmp_path / "file" / "below" / "a.txt", "")
