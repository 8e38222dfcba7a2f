import os

import pytest

from modules.library.files import CHECKPOINT, EMBEDDING, HYPERNETWORK, LORA
from modules.library.network_files import COVERS, network_file, network_files
from modules.library.walk import is_text


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(kind, *places, files=()):
    return sorted(found.name for found in network_files(kind, places, files))


def test_files_of_a_kind_are_found_with_their_folders(tmp_path):
    for name in ("a.safetensors", "deep/er/b.PT", "c.png", "a.json", ".hidden.safetensors", ".git/d.safetensors"):
        touch(tmp_path / name)
    found = {one.name: one for one in network_files(LORA, (tmp_path,))}
    assert set(found) == {"a.safetensors", "deep/er/b.PT"}
    assert (found["deep/er/b.PT"].folder, found["deep/er/b.PT"].stem) == ("deep/er", "b")
    assert found["a.safetensors"].base == str(tmp_path / "a") and found["a.safetensors"].folder == ""


def test_checkpoints_are_files_folders_and_what_the_command_line_names_but_no_vae(tmp_path):
    touch(tmp_path / "in" / "a.ckpt"), touch(tmp_path / "in" / "a.vae.pt")
    touch(tmp_path / "in" / "diff" / "model_index.json"), touch(tmp_path / "in" / "diff" / "unet" / "x.safetensors")
    touch(tmp_path / "in" / "diff.json")
    alone = touch(tmp_path / "alone.safetensors")
    assert names(CHECKPOINT, tmp_path / "in", files=(alone,)) == ["a.ckpt", "alone.safetensors", "diff"]
    assert "json" in next(one for one in network_files(CHECKPOINT, (tmp_path / "in",)) if one.name == "diff").stamp


def test_a_picture_is_an_embedding_unless_it_is_the_cover_of_one(tmp_path):
    for name in ("a.pt", "a.png", "b.preview.png", "c.png", "d.v1.pt", "d.v1.png"):
        touch(tmp_path / name)
    found = {one.name: one for one in network_files(EMBEDDING, (tmp_path,))}
    assert set(found) == {"a.pt", "c.png", "d.v1.pt"}
    assert found["c.png"].cover.endswith("c.png") and found["d.v1.pt"].cover.endswith("d.v1.png")


def test_the_cover_is_the_first_in_the_order_of_automatic1111(tmp_path):
    touch(tmp_path / "a.pt")
    for suffix in reversed(COVERS):
        touch(tmp_path / f"a{suffix}")
        assert next(network_files(HYPERNETWORK, (tmp_path,))).cover == str(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", ["a.safetensors", "a.json", "a.civitai.info", "a.txt", "a.preview.png"])
def test_the_stamp_changes_with_the_file_its_sidecars_and_its_cover(tmp_path, name):
    for one in ("a.safetensors", "a.json", "a.civitai.info", "a.txt", "a.preview.png", "other.json"):
        touch(tmp_path / one)
    before = next(network_files(LORA, (tmp_path,)))
    touch(tmp_path / "other.json", b"changed")
    assert next(network_files(LORA, (tmp_path,))).stamp == before.stamp
    touch(tmp_path / name, b"changed")
    after = network_file(LORA, before.name, before.path)
    assert after.stamp != before.stamp and after == next(network_files(LORA, (tmp_path,)))
    (tmp_path / name).unlink()
    assert getattr(network_file(LORA, before.name, before.path), "stamp", None) not in (before.stamp, after.stamp)


def test_links_are_followed_and_loops_are_not(tmp_path):
    touch(tmp_path / "lora" / "a.pt"), touch(tmp_path / "elsewhere" / "b.pt")
    (tmp_path / "lora" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "lora")
    (tmp_path / "lora" / "gone.pt").symlink_to(tmp_path / "nowhere.pt")
    assert names(LORA, tmp_path / "lora", tmp_path / "lora" / "linked") == ["a.pt", "linked/b.pt"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path):
    touch(tmp_path / "a.pt"), touch(tmp_path / "closed" / "b.pt")
    (tmp_path / "closed").chmod(0)
    try:
        assert names(LORA, tmp_path) == ["a.pt"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_names_that_cannot_be_stored_and_folders_that_are_not_there_are_passed_over(tmp_path):
    odd = ['q"u\'o.pt', "<b>.pt", "日本.pt", "a:b.pt", "ß 💡.pt"]
    for name in odd:
        touch(tmp_path / name)
    open(os.fsencode(tmp_path) + b"/\xff.pt", "wb").close()
    assert names(LORA, tmp_path, tmp_path / "nowhere") == sorted(odd)
    assert not is_text("\udcff") and network_file(LORA, "x.pt", str(tmp_path / "x.pt")) is None
