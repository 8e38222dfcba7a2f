import os
import sqlite3
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.app.gallery import Gallery, pictures_below
from modules.core.errors import InvalidRequest, NotFound
from modules.core.result import SavedImage
from modules.library.images import ImageInfo, read_image_info


@pytest.fixture
def outputs(tmp_path):
    folder = tmp_path / "outputs" / "txt2img-images" / "2024-01-01"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def gallery(tmp_path, outputs):
    gallery = Gallery(tmp_path / "data" / "gallery.sqlite3", (tmp_path / "outputs",), read_image_info)
    yield gallery
    gallery.close()


def picture(folder, name, text, mtime=None):
    info = PngInfo()
    info.add_text("parameters", text)
    path = folder / name
    Image.new("RGB", (8, 16)).save(path, pnginfo=info)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def saved(path, text="a cat\nSteps: 1", kind="picture"):
    return SavedImage(str(path), kind, 8, 16, 1, text)


def names(entries):
    return [Path(entry.path).name for entry in entries]


def test_a_saved_picture_is_found_at_once_by_words_of_its_infotext(gallery, outputs):
    gallery.add(saved(picture(outputs, "1.png", "", 1)), "job")
    gallery.add(saved(picture(outputs, "2.png", "", 2), "a red dog, Größe\nSteps: 20"))
    assert names(gallery.search()) == ["2.png", "1.png"]
    assert names(gallery.search("CAT")) == ["1.png"] and gallery.search("cat")[0].job == "job"
    assert names(gallery.search("re do")) == ["2.png"] and names(gallery.search("grö")) == ["2.png"]
    assert gallery.search("red cat") == [] and gallery.count("steps") == 2
    assert gallery.search("steps", limit=1, offset=1)[0] == gallery.get(1)


ODD = ['"', '"" *', "NOT", "a OR", "(x:1.2)", "col:*", "-", "\\", "%", "', --",
       "{infotext}: a", "\0", "a\0b", "\ud83d"]


@pytest.mark.parametrize("text", ODD)
def test_any_text_can_be_searched_for(gallery, outputs, text):
    gallery.add(saved(picture(outputs, "1.png", "")))
    assert gallery.count(text) == len(gallery.search(text))


def test_files_on_disk_are_indexed_and_only_changes_are_read_again(tmp_path, outputs):
    read = []

    def reading(path):
        read.append(path.name)
        return read_image_info(path)

    gallery = Gallery(tmp_path / "g.sqlite3", (tmp_path / "outputs",), reading)
    for number in range(3):
        picture(outputs, f"{number}.png", f"prompt{number}\nSteps: 1, Sampler: Euler, Seed: {number}", number)
    picture(outputs, "grid-0001.png", "", 5)
    (outputs / "broken.png").write_bytes(b"no picture")
    (outputs / "notes.txt").write_text("prompt0")
    (outputs / ".hidden.png").write_bytes(b"")
    gallery.rescan(wait=True)
    assert sorted(read) == ["0.png", "1.png", "2.png", "broken.png", "grid-0001.png"]
    assert names(gallery.search("prompt1")) == ["1.png"] and gallery.count() == 4
    entry = gallery.search("prompt1")[0]
    assert (entry.width, entry.height, entry.created, entry.kind) == (8, 16, 1.0, "picture")
    assert gallery.search("grid-0001")[0].kind == "grid"
    read.clear()
    (outputs / "0.png").unlink()
    picture(outputs, "1.png", "another", 9)
    gallery.rescan(wait=True)
    assert sorted(read) == ["1.png", "broken.png"]
    assert gallery.count() == 3 and gallery.count("prompt1") == 0 and names(gallery.search("another")) == ["1.png"]
    gallery.close()


def test_a_rescan_keeps_the_job_of_a_picture(gallery, outputs):
    path = picture(outputs, "1.png", "x")
    gallery.add(saved(path), "job")
    os.utime(path, (7, 7))
    gallery.rescan(wait=True)
    assert gallery.search()[0].job == "job" and gallery.count() == 1


def test_deleting_removes_the_file_and_the_entry(gallery, outputs):
    path = picture(outputs, "1.png", "x")
    gallery.add(saved(path))
    (entry,) = gallery.search()
    assert gallery.known(str(path))
    gallery.delete(entry.id)
    assert not path.exists() and gallery.count() == 0 and gallery.count("cat") == 0
    with pytest.raises(NotFound):
        gallery.get(entry.id)


def test_a_file_that_vanished_is_not_indexed(gallery, outputs):
    gallery.add(saved(outputs / "gone.png"))
    assert gallery.count() == 0


def test_without_full_text_search_words_are_still_found(tmp_path, outputs, monkeypatch):
    monkeypatch.setattr("modules.app.gallery._prepare_words", lambda database: False)
    gallery = Gallery(tmp_path / "g.sqlite3", (tmp_path / "outputs",), read_image_info)
    gallery.add(saved(picture(outputs, "1.png", ""), "100% a_cat"))
    gallery.add(saved(picture(outputs, "2.png", ""), "100 a cat"))
    assert names(gallery.search("cat 100%")) == ["2.png", "1.png"] and names(gallery.search("a_c")) == ["1.png"]
    gallery.close()


def test_an_index_made_without_full_text_search_gains_it(tmp_path, outputs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("modules.app.gallery._prepare_words", lambda database: False)
        gallery = Gallery(tmp_path / "g.sqlite3", (tmp_path / "outputs",), read_image_info)
        gallery.add(saved(picture(outputs, "1.png", ""), "old words"))
        gallery.close()
    gallery = Gallery(tmp_path / "g.sqlite3", (tmp_path / "outputs",), read_image_info)
    assert names(gallery.search("wor")) == ["1.png"]
    gallery.close()


def test_twenty_thousand_pictures_are_searched_through_the_index(tmp_path):
    gallery = Gallery(tmp_path / "g.sqlite3", (), lambda path: ImageInfo(""))
    gallery.close()
    with sqlite3.connect(tmp_path / "g.sqlite3") as connection:
        connection.executemany(
            "INSERT INTO pictures (path, kind, width, height, infotext, job, created, size, mtime_ns) "
            "VALUES (?, 'picture', 8, 8, ?, '', ?, 1, 1)",
            ((f"/o/{n}.png", f"word{n} common", n) for n in range(20_000)))
        plan = str(connection.execute("EXPLAIN QUERY PLAN SELECT * FROM pictures ORDER BY created DESC, id DESC "
                                      "LIMIT 60").fetchall())
        assert "pictures_created" in plan and "TEMP B-TREE" not in plan
    gallery = Gallery(tmp_path / "g.sqlite3", (), lambda path: ImageInfo(""))
    assert names(gallery.search("word19999")) == ["19999.png"] and gallery.count("common") == 20_000
    assert names(gallery.search(limit=2)) == ["19999.png", "19998.png"]
    gallery.close()


def test_closing_stops_a_scan(tmp_path, outputs):
    for number in range(5):
        picture(outputs, f"{number}.png", "x")

    def closing(path):
        gallery._closing.set()
        raise InvalidRequest("stop")

    gallery = Gallery(tmp_path / "g.sqlite3", (tmp_path / "outputs",), closing)
    gallery.add(saved(picture(outputs, "0.png", "x"), "x"))
    gallery.rescan(wait=True)
    assert gallery.count() == 1
    gallery.close()


def test_a_name_that_is_no_text_is_passed_over(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only text")
    assert list(pictures_below((tmp_path, tmp_path / "missing"))) == []
