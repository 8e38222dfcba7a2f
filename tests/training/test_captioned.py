import pytest
import torch
from PIL import Image

from modules.core.errors import NotFound
from modules.training import captioned


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("a red field\n\n  red  \n", "utf-8")
    half = Image.new("RGBA", (40, 60))
    half.paste((0, 0, 255, 255), (0, 0, 40, 30))
    half.save(tmp_path / "a_blue_sky.webp", lossless=True)
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def test_captions_are_lines_beside_the_picture_or_its_name(folder):
    found = captioned.found(folder)
    assert [one.path.name for one in found] == ["a_blue_sky.webp", "b.png"]
    assert [one.captions for one in found] == [("a blue sky",), ("a red field", "red")]


def test_pictures_are_squares_on_white(folder):
    sky, field = torch.cat(list(captioned.batches(captioned.found(folder), 16, 1)))
    assert sky.shape == (3, 16, 16)
    assert torch.allclose(field, torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 16, 16))
    assert torch.allclose(sky[:, 1, 8], torch.tensor([-1.0, -1, 1])) and torch.allclose(sky[:, 14, 8], torch.ones(3))


def test_a_folder_without_pictures_says_so(tmp_path):
    with pytest.raises(NotFound, match="no pictures"):
        captioned.found(tmp_path)
