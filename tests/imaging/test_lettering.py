import pytest
from PIL import ImageFont

from modules.imaging import lettering
from modules.imaging.lettering import font, wrapped

LETTERS = ImageFont.load_default(20)


def test_lines_fit_and_end_between_words():
    text = "the quick brown fox jumps over the lazy dog"
    lines = wrapped(text, LETTERS, 120, 9)
    assert " ".join(lines) == text and len(lines) > 2
    assert all(LETTERS.getlength(line) <= 120 for line in lines)
    assert wrapped("", LETTERS, 100, 3) == () and wrapped("one", LETTERS, 100, 3) == ("one",)


def test_a_word_wider_than_a_line_is_broken():
    lines = wrapped("w" * 30, LETTERS, 60, 99)
    assert "".join(lines) == "w" * 30 and all(LETTERS.getlength(line) <= 60 for line in lines)
    assert wrapped("ww", LETTERS, 1, 9) == ("w", "w")


def test_what_does_not_fit_is_left_out_and_that_is_seen():
    lines = wrapped("one two three four five six", LETTERS, 60, 2)
    assert len(lines) == 2 and lines[-1].endswith("...")
    assert all(LETTERS.getlength(line) <= width for width in range(30, 120, 3)
               for line in wrapped("one two three four five six", LETTERS, width, 2))
    assert wrapped("one two", LETTERS, 1, 1) == ("...",)
    assert wrapped("x " * 500, LETTERS, 10_000, 3)[-1].endswith("...")


def test_letters_beyond_ascii_need_a_font_that_has_them(monkeypatch):
    assert font(["cat"], 20).getname() == LETTERS.getname()
    found = font(["naïve"], 20)
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ("no such font.ttf",))
    assert font(["naïve"], 20).getname() == LETTERS.getname()
    if found.getname() == LETTERS.getname():
        pytest.skip("no further font is installed")
    assert bytes(found.getmask("ï")) != bytes(found.getmask("\uffff"))
