"""Infotexts inside pictures: what others write is read, what is written here others read."""

import io
import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings
from modules.library.images import encode, holds, read_image_info

TEXT = "a cat, é 猫 😀\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 1"


def picture(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def user_comment(value: bytes) -> bytes:
    """An EXIF block (TIFF 6.0, little-endian) whose Exif IFD at 26 holds one user comment."""
    first = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    second = struct.pack("<HHHIII", 1, 0x9286, 7, len(value), 44, 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + first + second + value


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("text", [TEXT, "plain, Steps: 1", "", "x" * 20_000])
def test_written_and_read_back(kind: str, text: str) -> None:
    data, suffix = encode(picture(), text, Settings(samples_format=kind))
    assert suffix == f".{kind}"
    info = read_image_info(data)
    assert (info.infotext, info.width, info.height) == (text, 8, 8)
    assert info.format == {"jpg": "JPEG"}.get(kind, kind.upper())


def test_png_chunks_are_what_a1111_reads() -> None:
    with Image.open(io.BytesIO(encode(picture(), TEXT, Settings())[0])) as image:
        image.load()
        assert image.text == {"parameters": TEXT}
        assert image.tobytes() == picture().tobytes()


def test_exif_is_what_other_programs_read() -> None:
    data, _ = encode(picture(), "äb", Settings(samples_format="jpg"))
    start = data.index(b"UNICODE\0") + 8
    assert data[start : start + 4] == b"\0\xe4\0b"


def test_formats_and_their_limits() -> None:
    settings = Settings(samples_format="webp")
    assert encode(picture((16_384, 1)), "", settings)[1] == ".png"
    assert encode(picture((66_000, 1)), "", Settings(samples_format="jpg"))[1] == ".png"
    for mode in ("RGB", "RGBA", "L"):
        for kind in ("png", "jpg", "webp"):
            assert read_image_info(encode(picture(mode=mode), TEXT, Settings(samples_format=kind))[0]).infotext == TEXT
    lossless, _ = encode(picture((64, 64)), "", Settings(samples_format="webp", webp_lossless=True))
    assert Image.open(io.BytesIO(lossless)).convert("RGB").tobytes() == picture((64, 64)).tobytes()


def test_an_infotext_too_long_for_jpeg_is_left_to_a_text_file() -> None:
    long = "word, " * 10_000
    assert read_image_info(encode(picture(), long, Settings(samples_format="jpg"))[0]).infotext == ""
    assert read_image_info(encode(picture(), long, Settings())[0]).infotext == long
    assert [holds(long, ".jpg"), holds(long, ".png"), holds(TEXT, ".jpg")] == [False, True, True]


def test_metadata_can_be_turned_off() -> None:
    assert read_image_info(encode(picture(), TEXT, Settings(enable_pnginfo=False))[0]).infotext == ""


@pytest.mark.parametrize(("comment", "expected"), [
    (b"UNICODE\0" + TEXT.encode("utf-16-be"), TEXT),
    (b"UNICODE\0" + TEXT.encode("utf-16-le"), TEXT),
    (b"ASCII\0\0\0Steps: 1", "Steps: 1"),
    (b"\0" * 8 + "é".encode(), "é"),
    (b"no code at all", "no code at all"),
    (b"UNICODE\0\0", "\ufffd"),
    (b"UNICODE\0\0a\xd8", "a\ufffd"),
])
def test_user_comments_of_other_programs(comment: bytes, expected: str) -> None:
    for kind in ("JPEG", "WEBP"):
        info = read_image_info(saved(picture(), kind, exif=user_comment(comment)))
        assert info.infotext == expected
        assert info.items == ({"exif comment": expected} if expected else {})


def test_png_chunks_of_other_programs() -> None:
    international = PngImagePlugin.PngInfo()
    international.add_itxt("parameters", TEXT, zip=True)
    international.add_text("workflow", '{"nodes": []}')
    info = read_image_info(saved(picture(), "PNG", pnginfo=international, dpi=(72, 72)))
    assert (info.infotext, info.items) == (TEXT, {"workflow": '{"nodes": []}'})
    plain = saved(picture(), "PNG")
    behind = plain[:-12] + chunk(b"tEXt", b"parameters\0late text") + plain[-12:]
    assert read_image_info(behind).infotext == "late text"


def test_novelai() -> None:
    info = PngImagePlugin.PngInfo()
    for key, value in {"Software": "NovelAI", "Description": "a cat", "Title": "AI generated image",
                       "Comment": json.dumps({"steps": 28, "sampler": "k_dpmpp_2m", "seed": 7, "scale": 5, "uc": "b"})
                       }.items():
        info.add_text(key, value)
    read = read_image_info(saved(picture((16, 8)), "PNG", pnginfo=info))
    assert read.infotext == ("a cat\nNegative prompt: b\nSteps: 28, Sampler: DPM++ 2M, CFG scale: 5, Seed: 7, "
                             "Size: 16x8, Clip skip: 2, ENSD: 31337")
    assert read.items["Title"] == "AI generated image"


def test_gif_and_avif() -> None:
    assert read_image_info(saved(picture(mode="L"), "GIF", comment=TEXT.encode())).infotext == TEXT
    assert read_image_info(saved(picture(), "AVIF", exif=user_comment(b"ASCII\0\0\0abc"))).infotext == "abc"


def test_reads_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture(), TEXT, Settings())[0])
    assert read_image_info(tmp_path / "a.png").infotext == read_image_info(str(tmp_path / "a.png")).infotext == TEXT
    with pytest.raises(FileNotFoundError):
        read_image_info(tmp_path / "b.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(600 * 1024 * 1024)
    with pytest.raises(InvalidRequest, match="more than 512 MiB"):
        read_image_info(tmp_path / "huge.png")


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    plain = saved(picture(), "PNG")
    data = b"parameters\0\0" + zlib.compress(bytes(50_000_000))
    return plain[:33] + chunk(b"zTXt", data) + plain[33:]


PNG = saved(picture((64, 64)), "PNG")


@pytest.mark.parametrize("data", [
    b"", b"hello", b"\x89PNG\r\n\x1a\n", PNG[:20], PNG[:-60], PNG[:50] + b"\xff" * 40 + PNG[90:], b"GIF89a",
    saved(picture(), "JPEG")[:30], saved(picture(), "WEBP")[:20], bomb(65_535, 65_535), bomb(13_000, 13_000),
    bomb(64, 64), text_bomb(), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"RIFF\x04\0\0\0WEBP",
], ids=range(15))
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read|megapixels"):
        read_image_info(data)


def test_damaged_exif_does_not_hide_the_picture() -> None:
    good = user_comment(b"ASCII\0\0\0abc")
    for exif in (good[:20], good[:-10] + b"\xff" * 3, b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nothing"):
        assert read_image_info(saved(picture(), "JPEG", exif=exif)).width == 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF"])
def test_pictures_changed_at_random_are_read_or_refused(kind: str) -> None:
    whole, chance = saved(picture((16, 16)), kind), random.Random(7)
    refused = 0
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            read_image_info(bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))]))
        except InvalidRequest:
            refused += 1
    assert refused > 10
