"""Previews: bounded in size, in a format that every browser shows at once."""

import io

from PIL import Image

from modules.imaging.thumbnails import encode_jpeg, thumbnail


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_no_side_exceeds_the_limit() -> None:
    sizes = {(1024, 512): (256, 128), (300, 900): (85, 256), (64, 64): (64, 64), (256, 1): (256, 1)}
    for size, expected in sizes.items():
        image = Image.new("RGB", size, (10, 200, 30))
        small = thumbnail(image, 256)
        assert small.size == expected and image.size == size
        assert small.getpixel((0, 0)) == (10, 200, 30)


def test_jpeg_is_baseline_and_close_to_the_picture() -> None:
    image = Image.linear_gradient("L").resize((512, 256)).convert("RGB")
    small = opened(encode_jpeg(image, max_side=128))
    assert (small.format, small.size, small.mode) == ("JPEG", (128, 64), "RGB")
    assert "progressive" not in small.info
    full = opened(encode_jpeg(image, quality=95))
    assert full.size == image.size
    assert max(abs(a - b) for a, b in zip(full.convert("L").tobytes(), image.convert("L").tobytes(), strict=True)) <= 4
    assert len(encode_jpeg(image, quality=10)) < len(encode_jpeg(image, quality=95))


def test_other_modes_are_converted() -> None:
    for mode in ("RGBA", "L", "P", "1"):
        assert opened(encode_jpeg(Image.new(mode, (8, 8)))).mode == "RGB"
