"""Files of an extension: their names and how they are written."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from modules.core.errors import InvalidRequest
from modules.launcher.extension_files import Limits, put, safe_path


def test_files_are_written_with_their_folders(tmp_path):
    put([(PurePosixPath("plugin.py"), b"one"), (PurePosixPath("a/b"), b"two")], tmp_path)
    assert (tmp_path / "plugin.py").read_bytes() == b"one" and (tmp_path / "a/b").read_bytes() == b"two"


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("x" * 300,), ("x/" * 3000 + "y",)])
def test_names_that_cannot_be_are_named_without_the_servers_folder(tmp_path, names):
    with pytest.raises(InvalidRequest, match="cannot be written here") as refused:
        put([(PurePosixPath(name), b"") for name in names], tmp_path)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", ["", ".", "/a", "..", "a/../b", "\\a", "a\\..\\b", "c:a", "a/b:c", "a\x00", "a\udcff",
                                  "a\nb", "a\u202eb"])
def test_paths_that_lead_elsewhere_or_cannot_be_shown(name):
    with pytest.raises(InvalidRequest, match="It has a path that"):
        safe_path(name)


def test_limits_are_what_is_still_allowed():
    limits = Limits(size=10, count=2)
    limits.check(2, 10)
    for count, size in ((3, 0), (0, 11)):
        with pytest.raises(InvalidRequest, match="more than 2 files or 10 bytes"):
            limits.check(count, size)
