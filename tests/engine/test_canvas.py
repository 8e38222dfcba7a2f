"""What is encoded and what is pasted, without any model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine.canvas import Beside, canvas
from modules.imaging.color import corrected


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def request(**values: Any) -> Request:
    return Request(**{"kind": "img2img", "width": 64, "height": 64, "init_images": ("0" * 32,), **values})


def test_transparency_gets_the_colour_of_the_setting() -> None:
    settings = Settings(img2img_background_color="#ff8000")
    whole = canvas(request(settings=settings), Image.new("RGBA", (64, 64)), Beside())
    assert whole.image.getcolors() == [(64 * 64, (255, 128, 0))]


def test_without_a_mask_the_result_is_taken_as_it_is_or_with_the_colours_of_the_picture() -> None:
    whole, result = canvas(request(), noise(64, 64), Beside()), noise(64, 64, 1).point(lambda value: value // 3)
    assert whole.finished(result).tobytes() == result.tobytes()
    assert whole.finished(result, True).tobytes() == corrected(result, noise(64, 64)).tobytes() != result.tobytes()


@pytest.mark.parametrize("mask_size", [(32, 32), (128, 128), (64, 64)])
def test_a_mask_of_another_size_is_brought_to_that_of_the_picture(mask_size: tuple[int, int]) -> None:
    mask = Image.new("L", mask_size)
    mask.paste(255, (0, 0, mask_size[0] // 2, mask_size[1]))
    found = canvas(request(mask="0" * 32, mask_blur_x=0, mask_blur_y=0), noise(64, 64), Beside(mask))
    assert found.mask is not None
    values = np.asarray(found.mask)
    assert (values[:, :28] == 255).all() and (values[:, 36:] == 0).all()


def test_an_all_white_mask_repaints_everything_and_a_black_one_is_refused() -> None:
    wanted, result = request(mask="0" * 32), noise(64, 64, 1)
    white = canvas(wanted, noise(64, 64), Beside(Image.new("L", (64, 64), 255)))
    assert white.finished(result).tobytes() == result.tobytes()
    with pytest.raises(InvalidRequest, match="empty"):
        canvas(wanted, noise(64, 64), Beside(Image.new("RGB", (64, 64))))


def test_only_masked_works_on_the_part_around_the_mask_at_full_size() -> None:
    mask = Image.new("L", (256, 128))
    mask.paste(255, (96, 48, 112, 64))
    part = canvas(request(mask="0" * 32, inpaint_full_res=True, inpaint_full_res_padding=8, mask_blur_x=0,
                          mask_blur_y=0), noise(256, 128), Beside(mask))
    assert part.box == (88, 40, 120, 72) and part.image.size == (64, 64) and part.size == (256, 128)
    expected = noise(256, 128).crop(part.box).resize((64, 64), Image.Resampling.LANCZOS)
    assert part.image.tobytes() == expected.tobytes()
    result = part.finished(Image.new("RGB", (64, 64), (1, 2, 3)))
    assert result.crop((96, 48, 112, 64)).getcolors() == [(256, (1, 2, 3))]


def test_differential_diffusion_keeps_shades_of_the_mask_and_does_not_mix_the_result() -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(100, (16, 16, 48, 48))
    for only in (False, True):
        found = canvas(request(mask="0" * 32, inpaint_mode="differential", inpaint_full_res=only,
                               inpaint_full_res_padding=0), noise(64, 64), Beside(mask))
        assert found.mask is not None and found.mask.getextrema()[1] == 100
        result = found.finished(Image.new("RGB", (64, 64), (9, 9, 9)))
        assert result.getpixel((30, 30)) == (9, 9, 9)


def test_a_mask_for_the_latent_follows_the_picture_and_is_white_where_it_grows() -> None:
    left, all_of_it = Image.new("L", (128, 64)), Image.new("L", (128, 64), 255)
    left.paste(255, (0, 0, 64, 64))
    wanted = request(mask="0" * 32, latent_mask="1" * 32, width=128, outpaint_right=64, mask_blur_x=9)
    found = canvas(wanted, noise(128, 64), Beside(all_of_it, latent_mask=left))
    assert found.latent_mask is not None and found.latent_mask.size == found.image.size == (192, 64)
    values = np.asarray(found.latent_mask)
    assert (values[:, :64] == 255).all() and not values[:, 64:128].any() and (values[:, 128:] == 255).all()


class Painter:
    name = "painter"

    def __init__(self):
        self.asked = []

    def upscale(self, image, width, height):
        self.asked.append((image.size, (width, height)))
        return Image.new("RGB", (width, height), "red")


@pytest.mark.parametrize("size, resize_mode, asked", [
    ((64, 64), 0, [((64, 64), (128, 128))]), ((256, 256), 0, []), ((128, 128), 0, []),
    ((64, 32), 1, [((64, 32), (256, 128))]), ((64, 32), 2, [((64, 32), (128, 64))]),
])
def test_the_upscaler_of_the_settings_makes_pictures_larger(size, resize_mode, asked):
    painter = Painter()
    request = Request(kind="img2img", width=128, height=128, resize_mode=resize_mode)
    made = canvas(request, Image.new("RGB", size, "blue"), Beside(), painter)
    assert painter.asked == asked and made.image.size == (128, 128)


def test_the_mask_is_not_painted():
    painter, mask = Painter(), Image.new("L", (64, 64))
    mask.paste(255, (10, 10, 30, 30))
    for whole in (False, True):
        request = Request(kind="img2img", width=128, height=128, mask="a" * 32, inpaint_full_res=whole)
        made = canvas(request, Image.new("RGB", (64, 64), "blue"), Beside(mask), painter)
        assert made.image.getpixel((1, 1)) == (255, 0, 0) and set(made.mask.getdata()) != {255}
    assert len(painter.asked) == 2
