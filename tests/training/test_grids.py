import torch
from PIL import Image

from modules.training import grids


def test_a_grid_lays_pictures_out_in_rows(tmp_path):
    pixels = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    grids.save_grid(pixels, tmp_path / "a" / "sheet.png", 2)
    sheet = Image.open(tmp_path / "a" / "sheet.png")
    assert sheet.size == (14, 14)
    assert sheet.getpixel((3, 3)) == (0, 0, 0) and sheet.getpixel((9, 3)) == (128, 128, 128)
    assert sheet.getpixel((3, 9)) == (255, 255, 255) and sheet.getpixel((9, 9)) == (128, 128, 128)
    assert sheet.getpixel((0, 0)) == (128, 128, 128)


def test_values_out_of_range_are_clamped():
    assert grids.to_image(torch.full((3, 1, 1), 9.0)).getpixel((0, 0)) == (255, 255, 255)
