"""One walk over folders: each once, in whatever order links lead to them."""

import os

from modules.library.walk import is_folder, is_text, walk


def below(*places, **how):
    return sorted(f"{here.below}{name}" for here in walk(places, **how) for name in here.entries)


def test_hidden_names_and_names_that_are_no_text_are_passed_over(tmp_path):
    for name in ("a", ".b", "folder/c", ".hidden/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    open(os.fsencode(tmp_path) + b"/\xff", "wb").close()
    assert below(tmp_path) == ["a", "folder", "folder/c"]
    assert is_text("ß") and not is_text("\udcff")


def test_links_are_followed_and_each_folder_is_entered_once(tmp_path):
    (tmp_path / "here").mkdir(), (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "back").symlink_to(tmp_path / "here")
    assert below(tmp_path / "here", tmp_path / "there") == ["link", "link/back", "link/file"]
    assert below(tmp_path / "here", tmp_path / "nowhere",
                 enter=lambda entry: entry.is_dir(follow_symlinks=False)) == ["link"]


def test_only_wanted_folders_are_entered(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True), (tmp_path / "out" / "deep").mkdir(parents=True)
    assert below(tmp_path, enter=lambda entry: is_folder(entry) and entry.name != "out") == ["in", "in/deep", "out"]
