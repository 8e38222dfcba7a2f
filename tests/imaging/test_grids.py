"""Grids: A1111's counts of rows and the place of each picture."""

import pytest
from PIL import Image

from modules.imaging.grids import grid, row_count


@pytest.mark.parametrize(("pictures", "rows"), [
    (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2), (7, 3), (8, 3), (9, 3), (12, 3), (13, 4), (16, 4), (100, 10)])
def test_rows_by_the_square_root(pictures: int, rows: int) -> None:
    assert row_count(pictures) == rows


@pytest.mark.parametrize(("pictures", "rows"), [(1, 1), (3, 1), (6, 2), (7, 1), (8, 2), (12, 3), (16, 4), (24, 4)])
def test_rows_without_empty_spots(pictures: int, rows: int) -> None:
    assert row_count(pictures, prevent_empty_spots=True) == rows


def test_rows_by_setting_and_batch_size() -> None:
    assert row_count(8, 3) == 3
    assert row_count(2, 16) == 2
    assert row_count(8, 0, batch_size=4) == 4
    assert row_count(1, 0, batch_size=4) == 1


def test_pictures_are_placed_row_by_row() -> None:
    colours = [(10 * index, 0, 255) for index in range(5)]
    result = grid([Image.new("RGB", (4, 2), colour) for colour in colours], 2)
    assert result.size == (12, 4)
    assert [result.getpixel((4 * (index % 3) + 3, 2 * (index // 3) + 1)) for index in range(5)] == colours
    assert result.getpixel((11, 3)) == (255, 255, 255)


def test_cells_fit_the_largest_picture() -> None:
    result = grid([Image.new("RGB", (4, 2), "red"), Image.new("L", (2, 6), 7)], 1)
    assert result.size == (8, 6)
    assert result.getpixel((4, 0)) == (7, 7, 7)
    assert grid([Image.new("RGB", (4, 2))], 5).size == (4, 2)


def test_no_pictures() -> None:
    with pytest.raises(ValueError, match="at least one"):
        grid([], 1)
