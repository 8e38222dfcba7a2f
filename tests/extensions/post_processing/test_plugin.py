import numpy as np
import pytest
from PIL import Image

from extensions.post_processing.plugin import Options, PostProcessing, copies, focused, rotated, split
from modules.library.sixteen_bit import DeepImage
from modules.plugin import InvalidRequest


def marked(width, height):
    """A black picture with a white pixel in its upper left corner."""
    image = Image.new("RGB", (width, height))
    image.putpixel((0, 0), (255, 255, 255))
    return image


def place(image):
    """Return where the brightest pixel is."""
    rows, columns = np.nonzero(np.asarray(image.convert("L")) == 255)
    return int(columns[0]), int(rows[0])


@pytest.mark.parametrize("degrees, size, where", [
    (0, (8, 5), (0, 0)), (90, (5, 8), (4, 0)), (180, (8, 5), (7, 4)), (270, (5, 8), (0, 7)),
])
def test_a_picture_is_turned_clockwise(degrees, size, where):
    made = rotated(marked(8, 5), degrees)
    assert (made.size, place(made)) == (size, where)


@pytest.mark.parametrize("flip, places", [
    ("Off", [(0, 0)]), ("Horizontal", [(0, 0), (7, 0)]), ("Vertical", [(0, 0), (0, 4)]),
    ("Both", [(0, 0), (7, 0), (0, 4)]),
])
def test_flipped_copies_follow_the_picture(flip, places):
    assert [place(one) for one in copies(marked(8, 5), flip)] == places


def test_an_oversized_picture_is_split_along_its_longer_side():
    tall = Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8), 64).reshape(200, 64)).convert("RGB")
    parts = split(tall, (64, 64), 0.5, 0.2)
    assert [one.size for one in parts] == [(64, 64)] * 4
    assert [one.getpixel((0, 0))[0] for one in parts] == [0, 45, 90, 136]
    wide = split(tall.transpose(Image.Transpose.ROTATE_90), (64, 64), 0.5, 0.2)
    assert [one.size for one in wide] == [(64, 64)] * 4
    assert split(tall, (64, 64), 0.3, 0.2) == [tall] and split(tall, (64, 200), 1.0, 0.2) == [tall]


def test_the_part_with_the_most_detail_is_kept():
    values = np.full((100, 300, 3), 90, np.uint8)
    values[30:70, 200:240] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    made = focused(Image.fromarray(values), (100, 100))
    assert made.size == (100, 100) and np.asarray(made).std() > np.asarray(values[:, :200]).std()
    assert np.asarray(made)[30:70].std() > 20
    flat = focused(Image.new("RGB", (300, 100), "grey"), (50, 50))
    assert flat.size == (50, 50)


def test_pictures_of_sixteen_bits_become_what_those_of_eight_do():
    shallow = Image.fromarray(np.random.default_rng(0).integers(90, 166, (300, 100, 3), dtype=np.uint8))
    deep = DeepImage(np.asarray(shallow).astype(np.uint16) * 257)
    for options in (Options(rotate="90", flip="Both"), Options(split=True, width=64, height=64),
                    Options(focal_crop=True, width=64, height=64)):
        ours, theirs = (PostProcessing(None).postprocess(image, options) for image in (deep, shallow))
        assert len(ours) == len(theirs) > 0 and all(isinstance(one, DeepImage) for one in ours)
        for one, other in zip(ours, theirs, strict=True):
            assert np.abs(np.asarray(one.shallow()).astype(int) - np.asarray(other)).max() <= 2


def test_nothing_is_touched_unless_it_is_asked_for():
    plugin = PostProcessing(None)
    assert plugin.postprocess(marked(8, 8), Options(width=64)) is None
    made = plugin.postprocess(marked(300, 100), Options(split=True, flip="Both", width=64, height=64, rotate="90"))
    assert len(made) == 3 * len(split(marked(100, 300), (64, 64), 0.5, 0.2))


@pytest.mark.parametrize("size", [(16, 16384), (16384, 16)])
def test_a_narrow_picture_is_not_blown_up(size):
    narrow = Image.new("RGB", size)
    with pytest.raises(InvalidRequest, match="16384"):
        split(narrow, (512, 512), 0.5, 0.2)
    assert focused(narrow, (8192, 8192)).size == (8192, 8192)
