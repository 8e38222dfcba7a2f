from concurrent.futures import ThreadPoolExecutor

import pytest

from modules.app.styles import StyleBook, read_styles
from modules.core.errors import DiskFull, InvalidRequest, NotFound
from modules.prompts.styles import Style


def test_styles_are_saved_replaced_and_deleted(tmp_path):
    book = StyleBook(tmp_path / "new" / "styles.csv")
    assert book.all() == {}
    book.save(Style("Ink", "{prompt}, ink", "blur"))
    book.save(Style("Film", "film", ""))
    book.save(Style("Ink", "ink", ""))
    assert book.all() == {"Ink": Style("Ink", "ink", ""), "Film": Style("Film", "film", "")}
    book.delete("Ink")
    assert list(book.all()) == ["Film"]
    with pytest.raises(NotFound):
        book.delete("Ink")
    with pytest.raises(InvalidRequest):
        book.save(Style("# no", "", ""))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["styles.csv"]


def test_what_was_edited_elsewhere_counts_at_once_and_is_kept(tmp_path):
    file = tmp_path / "styles.csv"
    file.write_bytes("\ufeffname,prompt,negative_prompt\r\n# mine\r\nInk,\"a\r\nb\",c\r\n".encode())
    book = StyleBook(file)
    assert book.all() == {"Ink": Style("Ink", "a\nb", "c")}
    book.save(Style("Film", "film", ""))
    assert file.read_bytes() == (
        "\ufeffname,prompt,negative_prompt\r\n# mine\r\nInk,\"a\r\nb\",c\r\n\"Film\",\"film\",\"\"\n").encode()


def test_no_style_is_lost_when_several_are_saved_at_once(tmp_path):
    book = StyleBook(tmp_path / "styles.csv")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: book.save(Style(f"s{number}", "", "")), range(40)))
    assert set(book.all()) == {f"s{number}" for number in range(40)}


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    book = StyleBook(tmp_path / "styles.csv")
    book.save(Style("Ink", "ink", ""))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFull):
        book.save(Style("Film", "film", ""))
    assert list(read_styles(tmp_path / "styles.csv")) == ["Ink"]
    assert [path.name for path in tmp_path.iterdir()] == ["styles.csv"]
