from modules.imaging import bars as drawing
from modules.imaging.bars import HEAT, THEMES, WIDTH, bars, heat, percent, scale


def coloured(image, row, colours):
    """Return how many pixels of a row's middle are of its bar."""
    y = drawing.TITLE + drawing.ROW * row + drawing.ROW // 2
    track = tuple(int(colours.track[i:i + 2], 16) for i in (1, 3, 5))
    columns = range(drawing.MARGIN + drawing.LABEL + 1, WIDTH - drawing.MARGIN - drawing.VALUE)
    line = [image.getpixel((x, y)) for x in columns]
    return sum(pixel != track for pixel in line)


def test_bars_are_as_long_as_their_values():
    for colours in THEMES.values():
        image = bars("B against A", "note", [("IN00", 0.5), ("IN01", 0.125), ("M00", 0.0), ("VAE", None)], colours)
        lengths = [coloured(image, row, colours) for row in range(4)]
        full = WIDTH - 2 * drawing.MARGIN - drawing.LABEL - drawing.VALUE
        assert abs(lengths[0] - full) <= 1 and abs(lengths[1] - full / 4) <= 1 and lengths[2:] == [0, 0]
        assert image.size == (WIDTH, drawing.TITLE + 4 * drawing.ROW + drawing.MARGIN)


def test_the_scale_is_a_number_that_is_easily_read():
    assert [scale(x) for x in (0.0, 0.5, 0.51, 0.013, 3.0)] == [1.0, 0.5, 1.0, 0.02, 5.0]


def test_colours_go_from_cool_to_hot():
    assert [heat(x) for x, _ in HEAT] == [colour for _, colour in HEAT]
    assert heat(2.0) == HEAT[-1][1]


def test_numbers_have_three_digits_that_count():
    assert [percent(x) for x in (None, 0.0, 0.12345, 1.0, 0.000012345)] == ["-", "0 %", "12.3 %", "100 %", "0.00123 %"]


def test_long_titles_are_cut_to_the_width():
    image = bars("x" * 500, "short\nnote", [("IN00", 0.5)], THEMES["dark"])
    assert image.crop((WIDTH - drawing.MARGIN, 0, WIDTH, drawing.TITLE)).getcolors() == [
        (drawing.MARGIN * drawing.TITLE, (0x1b, 0x18, 0x16))]
    assert len(image.crop((drawing.MARGIN, 0, WIDTH - drawing.MARGIN, 34)).getcolors(9999)) > 5
