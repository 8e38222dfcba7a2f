import io

import cv2
import numpy as np
import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings
from modules.library.images import encode, read_image_info
from modules.library.inputs import Inputs
from modules.library.sixteen_bit import DeepImage, bit_depth


def deep(channels=3, width=37, height=23):
    values = np.random.default_rng(channels).integers(0, 65536, (height, width, channels), dtype=np.uint16)
    return DeepImage(values)


def written(image):
    """Return a PNG as another program writes it."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.pixels.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(image.pixels[:, :, order]))[1].tobytes()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_another_program_reads_what_is_written(channels):
    image = deep(channels)
    data, suffix = encode(image, "a cat, ü", Settings())
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = cv2.imdecode(np.frombuffer(written(image), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, expected)
    assert suffix == ".png" and bit_depth(data) == 16 and read_image_info(data).infotext == "a cat, ü"
    assert read_image_info(encode(image, "x", Settings(enable_pnginfo=False))[0]).infotext == ""


def test_it_is_cut_turned_and_resized_as_pil_does():
    # Neither dark nor light: in 8 bits PIL rounds and cuts off between the two directions of a resize.
    shallow = Image.fromarray(np.random.default_rng(0).integers(90, 166, (23, 37, 3), dtype=np.uint8))
    image = DeepImage(np.asarray(shallow).astype(np.uint16) * 257)
    assert image.size == shallow.size
    for method in Image.Transpose:
        np.testing.assert_array_equal(image.transpose(method).shallow(), shallow.transpose(method))
    np.testing.assert_array_equal(image.crop((3, 5, 30, 20)).shallow(), shallow.crop((3, 5, 30, 20)))
    for size in ((20, 50), (90, 11)):
        made, expected = (one.resize(size, Image.Resampling.LANCZOS) for one in (image, shallow))
        assert made.size == size and np.abs(np.asarray(made.shallow()).astype(int) - np.asarray(expected)).max() <= 2
    assert len(np.unique(image.resize((90, 90)).pixels)) > 2000
    np.testing.assert_array_equal(image.convert("L"), shallow.convert("L"))
    assert encode(image.transpose(Image.Transpose.ROTATE_90), "", Settings())[1] == ".png"


def test_other_formats_hold_eight_bits():
    image = deep()
    data, suffix = encode(image, "", Settings(samples_format="webp", webp_lossless=True))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image.shallow()))
    assert suffix == ".webp"
    assert np.abs(np.asarray(image.shallow()) - image.pixels / 257).max() <= 0.5


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(40), b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_whatever_is_no_png_has_eight_bits(data):
    assert bit_depth(data) == 8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_of_16_bits_is_stored_as_it_is(tmp_path, channels):
    inputs, data = Inputs(tmp_path), written(deep(channels))
    stored = inputs.keep(data)
    assert (stored.width, stored.height) == (37, 23) and inputs.path(stored.id).read_bytes() == data
    assert inputs.keep(data) == stored and inputs.get(stored.id) == stored
    assert inputs.open(stored.id).mode in ("L", "RGB", "RGBA")


def test_others_are_stored_as_ever(tmp_path):
    inputs, buffer = Inputs(tmp_path), io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(buffer, "PNG")
    assert inputs.keep(buffer.getvalue()) == inputs.put(buffer.getvalue())


def test_a_strange_file_of_16_bits_is_refused(tmp_path):


    with pytest.raises(InvalidRequest):
        Inputs(tmp_path).keep(written(deep())[:200])
