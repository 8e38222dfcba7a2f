import numpy as np
import pytest
from PIL import Image

from modules.imaging import sheets
from modules.imaging.sheets import Labels, Tile, draw, lay_out

COLOURS = ("#ff0000", "#00ff00", "#0000ff", "#ffff00", "#00ffff", "#ff00ff", "#808080", "#800000")


def tile(colour, size=(40, 30)):
    return Tile(size, lambda: Image.new("RGB", size, colour))


def names(columns, rows=1, parts=1):
    return Labels(tuple(f"c{n}" for n in range(columns)), tuple(f"r{n}" for n in range(rows)),
                  tuple(f"s{n}" for n in range(parts)))


def plain(columns, rows=1, parts=1):
    return Labels(("",) * columns, ("",) * rows, ("",) * parts)


def pixels(picture, box):
    (x, y), (width, height) = box
    return np.asarray(picture)[y:y + height, x:x + width]


@pytest.mark.parametrize("labels", [names(2, 2, 2), plain(2, 2, 2)])
@pytest.mark.parametrize("margin", [0, 7])
def test_every_cell_is_at_its_place_and_nothing_but_the_background_between(labels, margin):
    tiles = [tile(colour) for colour in COLOURS]
    layout = lay_out(labels, tiles, margin)
    picture = draw(layout, tiles)
    assert picture.size == layout.size and layout.scale == 1.0 and layout.cell == (40, 30)
    rest = np.array(picture)
    for index, colour in enumerate(COLOURS):
        at = layout.cell_at(index % 2, index // 2 % 2, index // 4)
        cell = pixels(picture, (at, layout.cell))
        assert (cell == np.array(Image.new("RGB", (40, 30), colour))).all()
        rest[at[1]:at[1] + 30, at[0]:at[0] + 40] = 255
    ink = (rest < 255).any(axis=2)
    assert ink.any() == (labels.columns != ("", ""))
    assert (rest[ink].max(axis=1) == rest[ink].min(axis=1)).all()  # letters are grey on white


def test_without_a_legend_a_grid_is_cells_and_margins_alone():
    layout = lay_out(plain(3, 2), [tile("red")] * 6, 5)
    assert layout.size == (3 * 40 + 2 * 5, 2 * 30 + 5) and (layout.left, layout.top, layout.title) == (0, 0, 0)


def test_labels_stand_above_their_columns_left_of_their_rows_and_above_their_sheets():
    blank = [tile("white", (200, 160))] * 8
    for labels, kind in ((Labels(("x", ""), ("", ""), ("", "")), "columns"),
                         (Labels(("", ""), ("", "y"), ("", "")), "rows"),
                         (Labels(("", ""), ("", ""), ("", "z")), "sheets")):
        layout = lay_out(labels, blank)
        rows, columns = np.nonzero((np.asarray(draw(layout, blank)) < 128).any(axis=2))
        if kind == "columns":  # on both sheets
            first = layout.cell_at(0, 0, 0)[0]
            middles = [first + 100, layout.cell_at(0, 0, 1)[0] + 100]
            assert rows.max() < layout.top
            assert all(np.abs(columns - middle).min() < 10 for middle in middles)
            assert np.abs(columns[:, None] - np.array(middles)).min(axis=1).max() < 20
        elif kind == "rows":
            y = layout.cell_at(0, 1, 0)[1] + 80
            assert np.abs(rows - y).max() < 20
            assert {int(column >= layout.sheet_width) for column in columns} == {0, 1}
            assert columns[columns < layout.sheet_width].max() < layout.left
        else:
            assert rows.max() < layout.title and columns.min() > layout.sheet_width


def test_cells_are_as_large_as_the_largest_picture_and_smaller_ones_in_their_middle():
    tiles = [tile("#ff0000", (40, 40)), tile("#0000ff", (20, 10))]
    layout = lay_out(plain(2), tiles)
    picture = np.asarray(draw(layout, tiles))
    assert layout.cell == (40, 40)
    ys, xs = np.nonzero((picture == (0, 0, 255)).all(axis=2))
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (50, 69, 15, 24)


def unreadable():
    raise FileNotFoundError


@pytest.mark.parametrize("missing", [Tile(word="failed"), Tile((300, 300), unreadable)])
def test_a_missing_cell_is_blank_with_a_word(missing):
    tiles = [tile("#ff0000", (300, 300)), missing]
    layout = lay_out(plain(2), tiles)
    blank = pixels(draw(layout, tiles), (layout.cell_at(1, 0, 0), layout.cell))
    assert (blank[0, 0] == 0xe6).all() and (blank[:, :, 0] == blank[:, :, 2]).all()
    ys, xs = np.nonzero(blank[..., 0] < 0xe6 - 40)
    assert abs(xs.mean() - 150) < 10 and abs(ys.mean() - 150) < 10


@pytest.mark.parametrize("labels", [names(30, 20, 2), plain(30, 20, 2), Labels(("long words " * 30,) * 30,
                                                                              ("x" * 400,) * 20, ("", ""))])
def test_what_would_be_too_large_is_drawn_smaller_and_one_picture_is_open_at_a_time(labels):
    count, opened = 1200, []

    def opener(number):
        def show():
            opened.append(number)
            return Image.new("RGB", (64, 48), COLOURS[number % 8])
        return show

    tiles = [Tile((64, 48), opener(number)) for number in range(count)]
    layout = lay_out(labels, tiles, 4, limit=600_000)
    wide, high = layout.size
    assert wide * high <= 600_000 and 0 < layout.scale < 1
    assert abs(layout.cell[0] / 64 - layout.cell[1] / 48) < 0.03
    picture = draw(layout, tiles)
    assert opened == list(range(count))
    for number in (0, 31, 1199):
        x, y = layout.cell_at(number % 30, number // 30 % 20, number // 600)
        middle = picture.getpixel((x + layout.cell[0] // 2, y + layout.cell[1] // 2))
        assert middle == Image.new("RGB", (1, 1), COLOURS[number % 8]).getpixel((0, 0))


def test_ten_thousand_cells_in_a_row_stay_within_a_files_sides():
    layout = lay_out(plain(10_000), [tile("red", (512, 512))] * 10_000)
    assert max(layout.size) <= sheets.MAX_SIDE and layout.cell[0] >= 5


def test_drawing_stops_where_it_is_asked_to():
    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        draw(lay_out(plain(1), [tile("red")]), [tile("red")], stop)
