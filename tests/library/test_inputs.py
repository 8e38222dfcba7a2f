"""Pictures that come in: every kind becomes one of three modes, and nothing broken or huge gets through."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import DarkroomError, InvalidRequest, NotFound
from modules.library.inputs import Inputs, decoded, plain

GRADIENT = Image.merge("RGB", (Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256), 7)))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path / "data" / "inputs")


def test_a_picture_is_stored_once_under_the_hash_of_its_pixels(inputs, tmp_path) -> None:
    first = inputs.put(saved(GRADIENT, compress_level=9))
    again = inputs.put(saved(GRADIENT, "BMP"))
    other = inputs.put(saved(GRADIENT.transpose(Image.Transpose.ROTATE_90)))
    assert first == again != other and (first.width, first.height) == (256, 256)
    assert sorted(file.name for file in (tmp_path / "data" / "inputs").iterdir()) == sorted(
        (f"{first.id}.png", f"{other.id}.png"))
    assert inputs.open(first.id).tobytes() == GRADIENT.tobytes() and inputs.get(first.id) == first


def test_the_same_bytes_in_another_shape_are_another_picture(inputs) -> None:
    ids = {inputs.add(Image.new("L", size, 9)).id for size in ((2, 8), (8, 2), (4, 4))}
    assert len(ids) == 3


@pytest.mark.parametrize("key", ["", "x", "../" * 10 + "aa", "A" * 32, "0" * 31, "0" * 33, "0" * 32, "0" * 32 + "\n"])
def test_only_ids_of_stored_pictures_are_found(inputs, key: str) -> None:
    inputs.put(saved(GRADIENT))
    for find in (inputs.path, inputs.open, inputs.get):
        with pytest.raises(NotFound):
            find(key)


@pytest.mark.parametrize("mode, expected", [
    ("1", "L"), ("L", "L"), ("P", "RGB"), ("RGB", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"),
    ("LA", "RGB"), ("RGBA", "RGB"), ("I", "L"), ("F", "L"), ("I;16", "L"),
])
def test_every_mode_becomes_one_of_three(mode: str, expected: str) -> None:
    source = Image.new("I;16", (4, 3)) if mode == "I;16" else GRADIENT.resize((4, 3)).convert(mode)
    source.info["icc_profile"] = b"x"
    result = plain(source)
    assert (result.mode, result.size, result.info) == (expected, (4, 3), {})


def test_transparency_is_kept_wherever_it_is_written(inputs) -> None:
    alpha = Image.linear_gradient("L")
    rgba = GRADIENT.copy()
    rgba.putalpha(alpha)
    assert decoded(saved(rgba)).tobytes() == rgba.tobytes()
    palette = decoded(saved(GRADIENT.quantize(4), "PNG", transparency=0))
    assert palette.mode == "RGBA" and palette.getextrema()[3] == (0, 255)
    keyed = decoded(saved(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)))
    assert keyed.getpixel((0, 0)) == (1, 2, 3, 0)


def test_sixteen_bits_keep_their_upper_byte(inputs) -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0xFF00, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert np.asarray(decoded(saved(Image.fromarray(values), kind))).tolist() == [[0, 0, 1, 127, 255, 255]]


def test_floats_are_fractions_or_bytes() -> None:
    assert np.asarray(plain(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)))).tolist() == [[0, 128, 255]]
    assert np.asarray(plain(Image.fromarray(np.array([[-3.0, 99.4, 300.0]], np.float32)))).tolist() == [[0, 99, 255]]


def test_a_picture_lying_on_its_side_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF 2.3, 4.6.4: the first row is the right side
    flat = Image.new("RGB", (4, 2))
    flat.putpixel((0, 0), (255, 255, 255))
    turned = decoded(saved(flat, "PNG", exif=exif))
    assert turned.size == (2, 4) and turned.getpixel((1, 0)) == (255, 255, 255) and not turned.getexif()


def test_an_animation_is_its_first_picture() -> None:
    frames = [Image.new("RGB", (3, 3), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        red = decoded(data).convert("RGB").getpixel((1, 1))
        assert red[0] > 240 and max(red[1:]) < 15, kind


def test_cmyk_photographs_show_their_colours() -> None:
    cyan = decoded(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=95)).getpixel((4, 4))
    assert cyan[0] < 10 and min(cyan[1:]) > 245


def test_the_smallest_picture_is_one() -> None:
    assert decoded(saved(Image.new("RGB", (1, 1), "red"))).getpixel((0, 0)) == (255, 0, 0)


def huge(width: int, height: int) -> bytes:
    """A PNG header that promises ``width`` by ``height`` pixels."""
    data = bytearray(saved(Image.new("1", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    from zlib import crc32
    data[29:33] = crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("data, said", [
    (b"", "no picture"), (b"not a picture", "no picture"), (saved(GRADIENT)[:3000], "cannot be read"),
    (huge(20_000, 20_000), "too large"), (huge(8192, 8193), "8192x8193"), (huge(70_000, 1), "too large"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
])
def test_what_is_no_usable_picture_is_refused_with_a_reason(inputs, tmp_path, data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        inputs.put(data)
    assert refused.value.hint
    assert not (tmp_path / "data").exists()


def test_a_layer_lies_over_its_picture_and_covers_what_its_alpha_says(inputs) -> None:
    rng = np.random.default_rng(5)
    picture, layer = rng.integers(0, 256, (6, 5, 3), np.uint8), rng.integers(0, 256, (6, 5, 4), np.uint8)
    below, above = inputs.add(Image.fromarray(picture)), inputs.add(Image.fromarray(layer))
    alpha = layer[..., 3:].astype(np.float64) / 255
    expected = layer[..., :3] * alpha + picture * (1 - alpha)
    result = np.asarray(inputs.open(inputs.flattened(below.id, above.id).id), np.float64)
    assert result.shape == (6, 5, 3) and np.abs(result - expected).max() <= 1.0
    assert np.array_equal(np.asarray(inputs.open(inputs.coverage(above.id).id)), layer[..., 3])
    full = inputs.add(Image.new("RGB", (5, 6)))
    assert inputs.open(inputs.coverage(full.id).id).getextrema() == (255, 255)
    with pytest.raises(InvalidRequest, match="5x6.*4x4"):
        inputs.flattened(below.id, inputs.add(Image.new("RGBA", (4, 4))).id)


def test_old_pictures_go_unless_they_are_kept_or_brought_again(inputs) -> None:
    kept, old, young, again = (inputs.add(Image.new("L", (2, 2), value)).id for value in range(4))
    half = inputs.path(old).with_suffix(".part")
    half.write_bytes(b"x")
    foreign = half.with_name("notes.png")
    foreign.write_bytes(b"x")
    for path in (inputs.path(kept), inputs.path(old), inputs.path(again), half, foreign):
        os.utime(path, (1000, 1000))
    inputs.add(Image.new("L", (2, 2), 3))
    assert inputs.prune({kept}, 3600, now=os.stat(inputs.path(young)).st_mtime + 60) == 2
    assert not half.exists() and foreign.exists()
    for key in (kept, young, again):
        assert inputs.path(key).exists()
    with pytest.raises(NotFound):
        inputs.path(old)


def test_pruning_where_nothing_was_brought_does_nothing(inputs) -> None:
    assert inputs.prune((), 0) == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DarkroomError, match="could not be stored"):
        Inputs(tmp_path / "file" / "inputs").put(saved(GRADIENT))


def test_a_stored_file_that_was_damaged_is_an_error_of_the_request(inputs) -> None:
    key = inputs.put(saved(GRADIENT)).id
    inputs.path(key).write_bytes(b"gone")
    for find in (inputs.open, inputs.get):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            find(key)
