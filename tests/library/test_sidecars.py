import json
import os

import pytest

from modules.core.errors import DiskFull, InvalidRequest
from modules.library.sidecars import MAX_BYTES, MAX_TEXT, Sidecar, plain, read_texts, write_sidecar

A1111 = {"description": "a look", "sd version": "SD1", "activation text": "word, other", "preferred weight": 0.8,
         "negative text": "blur", "notes": "mine", "civitai key": [1, {"x": None}]}
CIVITAI = {"trainedWords": ["one, ", "two", 3], "baseModel": "SDXL 1.0", "model": {"name": "The Name"},
           "description": "<p>Soft &amp; <b>wet</b>.<br>Next</p>"}


@pytest.fixture
def base(tmp_path):
    return str(tmp_path / "net.v1")


def put(base, suffix, content):
    with open(base + suffix, "w", encoding="utf-8") as file:
        file.write(content if isinstance(content, str) else json.dumps(content))


def test_what_automatic1111_wrote_is_read(base):
    put(base, ".json", A1111)
    assert read_texts(base).own == Sidecar("a look", "word, other", 0.8, "blur", "mine", "SD1")


def test_what_civitai_helper_wrote_is_shown_where_the_own_sidecar_is_silent(base):
    put(base, ".civitai.info", CIVITAI)
    put(base, ".json", {"activation text": "mine", "sd version": "Unknown"})
    texts = read_texts(base)
    assert texts.found == Sidecar("Soft & wet.\nNext", "one, two", version="SDXL 1.0")
    assert texts.shown == Sidecar("Soft & wet.\nNext", "mine", version="SDXL 1.0") and texts.title == "The Name"


def test_a_text_file_is_the_last_resort_of_a_description(base):
    put(base, ".description.txt", "second")
    assert read_texts(base).shown.description == "second"
    put(base, ".txt", " first \n")
    assert read_texts(base).shown.description == "first"
    put(base, ".json", {"description": "own"})
    assert read_texts(base).shown.description == "own"


@pytest.mark.parametrize("content", ["[1, 2]", "{", "", "null", '"x"', "[" * 100_000, '{"description": "\\ud83d'])
def test_a_sidecar_that_is_no_object_counts_as_absent_and_is_never_written_over(base, content):
    put(base, ".json", content)
    assert read_texts(base).own == Sidecar() and "net.v1.json" in read_texts(base).problem
    with pytest.raises(InvalidRequest, match=r"net\.v1\.json"):
        write_sidecar(base, {"notes": "x"})
    with open(f"{base}.json", encoding="utf-8") as file:
        assert file.read() == content


def test_a_huge_sidecar_is_not_read(base):
    put(base, ".json", " " * (MAX_BYTES + 1))
    put(base, ".civitai.info", " " * (MAX_BYTES + 1))
    assert "larger" in read_texts(base).problem and read_texts(base).shown == Sidecar()


@pytest.mark.parametrize("content", [
    {"preferred weight": "x", "description": 5, "notes": None}, {"preferred weight": [1]}, {"preferred weight": 1e999},
    {"preferred weight": None, "activation text": {"a": 1}}, {"preferred weight": 10**400},
])
def test_values_of_another_kind_are_passed_over(base, content):
    put(base, ".json", content)
    put(base, ".civitai.info", {"trainedWords": "x", "model": [], "baseModel": 3, "description": []})
    assert read_texts(base).shown == Sidecar() and not read_texts(base).problem


def test_halves_of_characters_are_replaced_and_numbers_in_quotes_understood(base):
    put(base, ".json", '{"description": "\\ud83d!", "preferred weight": "0.5"}')
    assert read_texts(base).own == Sidecar("?!", weight=0.5)


def test_an_edit_changes_its_fields_and_keeps_all_others_in_order(base):
    put(base, ".json", A1111)
    write_sidecar(base, {"notes": "ü <b>", "weight": 1})
    with open(f"{base}.json", encoding="utf-8") as file:
        text = file.read()
    assert json.loads(text) == {**A1111, "notes": "ü <b>", "preferred weight": 1} and "ü" in text
    assert list(json.loads(text)) == list(A1111)
    assert os.listdir(os.path.dirname(base)) == ["net.v1.json"]


def test_an_edit_makes_the_file_and_keeps_who_may_read_it(base):
    write_sidecar(base, {"description": "new"})
    os.chmod(f"{base}.json", 0o664)
    write_sidecar(base, {"version": "SD2"})
    assert read_texts(base).own == Sidecar("new", version="SD2")
    assert os.name == "nt" or os.stat(f"{base}.json").st_mode & 0o777 == 0o664


@pytest.mark.parametrize("changes", [
    {"path": "x"}, {"weight": "1"}, {"weight": True}, {"weight": float("nan")}, {"weight": 101}, {"notes": 1},
    {"notes": "x" * (MAX_TEXT + 1)}, {"sd version": "x"},
])
def test_an_edit_of_another_kind_is_refused(base, changes):
    with pytest.raises(InvalidRequest):
        write_sidecar(base, changes)
    assert not os.path.exists(f"{base}.json")


def test_a_write_that_fails_leaves_the_old_file(base, monkeypatch):
    put(base, ".json", A1111)

    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="No space"):
        write_sidecar(base, {"notes": "new"})
    assert read_texts(base).own.notes == "mine" and os.listdir(os.path.dirname(base)) == ["net.v1.json"]


@pytest.mark.parametrize("markup, text", [
    ("plain", "plain"), ("a < b and c > d", "a < b and c > d"), ("<script>x()</script>", "x()"),
    ("<ul><li>a</li><li>b</li></ul>", "a\nb"), ("&lt;lora:x:1&gt;", "<lora:x:1>"), ("<" * 50_000, "<" * 50_000),
])
def test_descriptions_lose_their_markup(markup, text):
    assert plain(markup) == text
