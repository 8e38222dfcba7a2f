import base64
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from modules.app import networks as index
from modules.app.covers import Covers, embedded_cover
from modules.app.networks import Networks, Query, describe
from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.library.files import BUNDLED, folders
from tests.fixtures.networks import write_network
from tests.fixtures.tiny_models import write_tiny_sd1


@pytest.fixture
def places(tmp_path):
    return folders(tmp_path, {}, {})


@pytest.fixture
def lora(places):
    places.lora[0].mkdir(parents=True)
    return places.lora[0]


@pytest.fixture
def reads():
    return []


@pytest.fixture
def networks(tmp_path, places, reads):
    def read(found):
        reads.append(found.name)
        return describe(found)

    made = Networks(tmp_path / "data" / "networks.sqlite3", places, read)
    yield made
    made.close()


def put(folder, name, width=768, metadata=None, **sidecar):
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_network(path, width, metadata)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def picture(size=(600, 900), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def names(networks, text="", **query):
    return [row.name for row in networks.search(Query("lora", text, **query))]


def test_nothing_is_read_before_a_scan_and_unchanged_files_are_never_read_again(networks, lora, reads):
    put(lora, "a"), put(lora, "sub/b", **{"notes": "x"}), (lora / "c.pt").write_bytes(b"no pickle")
    assert names(networks) == [] and reads == []
    networks.rescan(wait=True)
    assert sorted(reads) == ["a.safetensors", "c.pt", "sub/b.safetensors"]
    revision = networks.revision
    networks.rescan(wait=True)
    assert len(reads) == 3 and networks.revision == revision


@pytest.mark.parametrize("change", [
    lambda folder: put(folder, "a", 1024),
    lambda folder: (folder / "a.json").write_text('{"notes": "new"}'),
    lambda folder: (folder / "a.civitai.info").write_text("{}"),
    lambda folder: (folder / "a.preview.jpg").write_bytes(b"x"),
    lambda folder: os.utime(folder / "a.json", ns=(1, 1)),
])
def test_only_what_changed_is_read_again_and_keeps_its_id(networks, lora, reads, change):
    put(lora, "a", notes="old"), put(lora, "b")
    networks.rescan(wait=True)
    before = {row.name: row.id for row in networks.search(Query("lora"))}
    reads.clear()
    change(lora)
    networks.rescan(wait=True)
    assert reads == ["a.safetensors"] and {row.name: row.id for row in networks.search(Query("lora"))} == before


def test_new_files_appear_and_deleted_ones_go(networks, lora):
    put(lora, "a", notes="findme"), put(lora, "b")
    networks.rescan(wait=True)
    (lora / "a.safetensors").unlink(), put(lora, "c")
    networks.rescan(wait=True)
    assert names(networks) == ["b", "c"] and names(networks, "findme") == []


def test_it_is_searched_by_parts_of_words_of_every_text(networks, lora):
    put(lora, "MyStyle_v2", description="Soft <b>Größe", **{"activation text": "catgirl", "notes": "from a friend"})
    put(lora, "deep/Other", metadata={"modelspec.title": "Grand Title", "modelspec.description": "in the header"})
    networks.rescan(wait=True)
    for text in ("style", "STYLE_V2", "größe", "GRÖSSE", "atgir", "friend soft", "v2", "ö"):
        assert names(networks, text) == ["MyStyle_v2"], text
    for text in ("deep/o", "grand", "HEADER", "er in"):
        assert names(networks, text) == ["Other"], text
    assert names(networks, "style other") == [] and networks.count(Query("lora", "style")) == 1


@pytest.mark.parametrize("text", ['"', '"""', "NOT x", "a OR b", "(x:1.2)", "words:abc", "---", "\\\\\\", "%%%",
                                  "'; --", "a\0b", "\0\0\0", "\ud83d\ud83d\ud83d", "x" * 100_000, "* ** ***"])
def test_any_text_can_be_searched_for_with_and_without_the_index(networks, lora, monkeypatch, text):
    put(lora, "a")
    networks.rescan(wait=True)
    assert networks.count(Query("lora", text)) == len(networks.search(Query("lora", text)))
    with_index = names(networks, text)
    monkeypatch.setattr(networks, "_trigrams", False)
    assert names(networks, text) == with_index


def test_without_the_index_of_letters_the_same_is_found(tmp_path, places, lora, monkeypatch):
    put(lora, "MyStyle"), put(lora, "other")
    monkeypatch.setattr(index, "_prepare_words", lambda database: False)
    networks = Networks(tmp_path / "plain.sqlite3", places)
    networks.rescan(wait=True)
    assert names(networks, "ysty") == ["MyStyle"]
    networks.close()


def test_folders_are_counted_and_hold_what_is_below_them(networks, lora):
    for name in ("a", "x/b", "x/y/c", "xx/d", "x_/e"):
        put(lora, name)
    networks.rescan(wait=True)
    assert networks.folders("lora") == {"": 1, "x": 1, "x/y": 1, "x_": 1, "xx": 1}
    assert names(networks, folder="x") == ["b", "c"] and names(networks, folder="x/y") == ["c"]
    assert names(networks, folder="X/") == [] and names(networks, "c", folder="x") == ["c"]


def test_it_is_sorted_and_paged(networks, lora):
    for number, name in enumerate(("b/Zed", "a/apple", "Mango")):
        os.utime(put(lora, name), (number, number))
    networks.rescan(wait=True)
    assert names(networks) == ["apple", "Mango", "Zed"]
    assert names(networks, descending=True) == ["Zed", "Mango", "apple"]
    assert names(networks, sort="path") == ["apple", "Zed", "Mango"]
    assert names(networks, sort="date", descending=True) == ["Mango", "apple", "Zed"]
    assert [row.name for row in networks.search(Query("lora"), limit=1, offset=1)] == ["Mango"]
    for text in ("", "a", "apple", "lora"):
        query = Query("lora", text, sort="date", descending=True)
        found = networks.search(query, 2, 1), networks.count(query)
        assert networks.page(query, 2, 1) == found
    with pytest.raises(InvalidRequest):
        names(networks, sort="name; DROP TABLE networks")


def test_those_of_another_family_are_left_out_and_unknown_ones_are_not(networks, lora):
    put(lora, "one", 768), put(lora, "two", 1024), put(lora, "xl", 2048), (lora / "unknown.pt").write_bytes(b"x")
    put(lora, "said", 768, **{"sd version": "SDXL"})
    networks.rescan(wait=True)
    assert names(networks, family="sd15") == ["one", "unknown"]
    assert names(networks, family="sdxl") == ["said", "unknown", "xl"] and len(names(networks)) == 5
    assert networks.count(Query("lora", family="sd15")) == 2


def test_a_checkpoint_is_recognised_and_found_by_its_title(networks, places):
    write_tiny_sd1(places.checkpoints[0] / "tiny.safetensors")
    write_tiny_sd1(places.checkpoints[0] / "folder", "diffusers")
    (places.checkpoints[0] / "bad.safetensors").write_bytes(b"<html>")
    networks.rescan(wait=True)
    assert networks.family("tiny.safetensors [abcdef0123]") == "sd15"
    assert networks.family("folder") == "sd15" and networks.count(Query("checkpoint")) == 3
    assert networks.family("bad.safetensors") == networks.family("none") == networks.family("") == ""
    (places.checkpoints[0] / "bad.safetensors").unlink()
    networks.rescan(wait=True)
    assert networks.family("") == "sd15"


def test_a_file_that_breaks_its_reader_hides_no_other(tmp_path, places, lora):
    def read(found):
        return describe(found) if found.stem == "good" else 1 // 0
    put(lora, "bad"), put(lora, "good")
    networks = Networks(tmp_path / "n.sqlite3", places, read)
    networks.rescan(wait=True)
    assert names(networks) == ["bad", "good"] and names(networks, "bad") == ["bad"]
    networks.close()


BROKEN = [b"", b"x", b"\xff" * 8 + b"{", b"\x02\0\0\0\0\0\0\0{}", b"\x05\0\0\0\0\0\0\0{bad}", b"<!doctype html>"]


def test_metadata_that_is_no_proper_text_is_no_obstacle(networks, lora):
    put(lora, "a", metadata={"modelspec.title": "\ud83d\0", "modelspec.description": "half \ud83d"})
    networks.rescan(wait=True)
    assert networks.search(Query("lora", "half"))[0].description == "half ?"


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_listed_by_its_name(networks, lora, content):
    (lora / "a.safetensors").write_bytes(content)
    (lora / "a.json").write_text("[]")
    networks.rescan(wait=True)
    assert names(networks) == ["a"]


def test_a_pickle_is_not_even_opened(networks, lora):
    (lora / "a.pt").write_bytes(b"x")
    (lora / "a.pt").chmod(0)
    networks.rescan(wait=True)
    assert names(networks) == ["a"]


def test_two_files_of_one_name_and_odd_names_are_all_there(networks, lora):
    for name in ("a/same", "b/same", "q\"u'o", "<img src=x>", "日本 💡"):
        put(lora, name)
    networks.rescan(wait=True)
    assert sorted(names(networks)) == sorted(["same", "same", "q\"u'o", "<img src=x>", "日本 💡"])
    assert names(networks, "本 💡") == ["日本 💡"] and names(networks, "<img") == ["<img src=x>"]


def test_an_edit_is_written_beside_the_file_and_found_at_once(networks, lora, reads):
    path = put(lora, "a", **{"civitai": 1})
    networks.rescan(wait=True)
    (row,) = networks.search(Query("lora"))
    changed = networks.edit(row.id, {"activation": "zebra", "weight": 0.6})
    assert (changed.id, changed.activation, changed.weight) == (row.id, "zebra", 0.6)
    assert json.loads(path.with_suffix(".json").read_text()) == {
        "civitai": 1, "activation text": "zebra", "preferred weight": 0.6}
    reads.clear()
    networks.rescan(wait=True)
    assert names(networks, "zebr") == ["a"] and reads == []


def test_what_was_deleted_meanwhile_is_not_found(networks, lora):
    path = put(lora, "a")
    networks.rescan(wait=True)
    (row,) = networks.search(Query("lora"))
    path.unlink()
    for act in (lambda: networks.edit(row.id, {"notes": "x"}), lambda: networks.texts(row.id),
                lambda: networks.set_cover(row.id, b"x"), lambda: networks.thumbnail(row.id), lambda: networks.get(99)):
        with pytest.raises(NotFound):
            act()
    assert os.listdir(lora) == []


def test_a_lora_that_comes_with_the_program_is_read_only_though_its_folder_is_among_the_users(tmp_path):
    places = folders(tmp_path, {})
    put(tmp_path / BUNDLED["lora"], "shipped"), put(places.lora[0], "own")
    networks = Networks(tmp_path / "n.sqlite3", places)
    networks.rescan(wait=True)
    own, shipped = (networks.search(Query("lora", name))[0] for name in ("own", "shipped"))
    assert networks.edit(own.id, {"notes": "x"}).id == own.id
    with pytest.raises(Forbidden):
        networks.edit(shipped.id, {"notes": "x"})
    networks.close()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_a_cover_that_is_a_program_is_not_run(tmp_path, networks, lora, monkeypatch):
    """Pillow would hand PostScript to Ghostscript, whatever the file is called."""
    ran = tmp_path / "ran"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n"), program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    put(lora, "a")
    (lora / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    networks.rescan(wait=True)
    (row,) = networks.search(Query("lora"))
    with pytest.raises(NotFound):
        networks.thumbnail(row.id)
    assert not ran.exists()


def test_what_comes_with_the_program_is_read_only_unless_it_lies_among_the_users_own(tmp_path):
    shipped = tmp_path / "program" / "models"
    places = replace(folders(tmp_path / "user", {}, {}), checkpoints=(shipped,), bundled=(shipped,))
    put(shipped, "a")
    for models, error in ((places.models_dir, Forbidden), (tmp_path / "program", None)):
        networks = Networks(tmp_path / "n.sqlite3", replace(places, models_dir=models))
        networks.rescan(wait=True)
        (row,) = networks.search(Query("checkpoint"))
        if error:
            with pytest.raises(error):
                networks.edit(row.id, {"notes": "x"})
        else:
            assert networks.edit(row.id, {"notes": "x"}).id == row.id
        networks.close()


def test_a_cover_is_made_small_once_and_again_when_it_changes(networks, lora):
    path = put(lora, "a")
    path.with_suffix(".png").write_bytes(picture())
    networks.rescan(wait=True)
    (row,) = networks.search(Query("lora"))
    small = networks.thumbnail(row.id)
    with Image.open(small) as image:
        assert image.format == "JPEG" and max(image.size) == 448
    made = small.stat().st_mtime_ns
    assert networks.thumbnail(row.id) == small and small.stat().st_mtime_ns == made
    changed = networks.set_cover(row.id, picture((64, 64)))
    assert changed.thumbnail != row.thumbnail and networks.thumbnail(row.id) != small


def test_the_cover_of_an_embedding_in_a_picture_does_not_replace_it(networks, places):
    places.embeddings[0].mkdir()
    own = places.embeddings[0] / "e.png"
    own.write_bytes(picture())
    networks.rescan(wait=True)
    (row,) = networks.search(Query("embedding"))
    before = own.read_bytes()
    networks.set_cover(row.id, picture((8, 8)))
    assert own.read_bytes() == before and (own.parent / "e.preview.png").exists()


@pytest.mark.parametrize("metadata", [
    {"modelspec.thumbnail": "data:image/jpeg;base64," + base64.b64encode(picture()).decode()},
    {"ssmd_cover_images": json.dumps([base64.b64encode(picture()).decode()])},
])
def test_a_cover_inside_the_file_is_shown(networks, lora, metadata):
    put(lora, "a", metadata=metadata)
    networks.rescan(wait=True)
    (row,) = networks.search(Query("lora"))
    assert networks.thumbnail(row.id).read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("metadata", [{}, {"ssmd_cover_images": "["}, {"ssmd_cover_images": "{}"},
                                      {"ssmd_cover_images": "[1]"}, {"modelspec.thumbnail": "javascript:x"}])
def test_what_is_no_cover_inside_a_file_is_none(metadata):
    assert embedded_cover(metadata) == ""


@pytest.mark.parametrize("content", [b"", b"<svg onload=alert(1)>", picture()[:200]])
def test_a_cover_that_is_no_picture_is_not_found(networks, lora, content):
    put(lora, "a").with_suffix(".png").write_bytes(content)
    networks.rescan(wait=True)
    (row,) = networks.search(Query("lora"))
    with pytest.raises(NotFound):
        networks.thumbnail(row.id)


def test_missing_thumbnails_are_made_in_the_background_and_old_ones_removed(tmp_path):
    cover = tmp_path / "a.png"
    cover.write_bytes(picture())
    covers = Covers(tmp_path / "cache")
    covers.thumbnail(str(cover), "old")
    covers.make_all({"new1": str(cover), "new2": str(tmp_path / "none.png"), "new3": str(cover)})
    making = covers._making
    if making is not None:
        making.join()
    covers.close()
    assert sorted(path.stem for path in Path(tmp_path / "cache").glob("*/*")) == ["new1", "new3"]


def test_the_index_survives_a_restart_and_a_scan_can_be_stopped(tmp_path, places, lora):
    put(lora, "a")
    first = Networks(tmp_path / "n.sqlite3", places)
    first.rescan(wait=True)
    first.close()
    second = Networks(tmp_path / "n.sqlite3", places, lambda found: pytest.fail("read again"))
    assert names(second) == ["a"] and not second.scanning
    second.rescan()
    second.close()
