import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modules.upscaling.networks import load_network
from modules.upscaling.tiles import Tiles, in_tiles
from tests.upscaling.small import compact, needs, picture


@pytest.mark.parametrize("side, length", [(64, 64), (64, 65), (64, 200), (64, 5), (32, 1000), (40, 97)])
def test_spans_cover_a_side_in_tiles_of_one_size(side, length):
    tiles = Tiles(side, 16)
    spans = tiles.spans(length)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(stop - start == min(side, length) for start, stop in spans)
    assert all(before[1] - after[0] >= 16 for before, after in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("side", [20, 33, 500])
def test_tiles_put_together_are_the_picture(dtype, side):
    pixels = picture(70, 50, dtype=dtype)
    rows = list(in_tiles(lambda tile, left, top: tile.repeat(2, 0).repeat(2, 1), pixels, Tiles(side, 12), 2))
    whole = np.concatenate(rows)
    np.testing.assert_allclose(whole, pixels.repeat(2, 0).repeat(2, 1) / np.float32(np.iinfo(dtype).max), atol=1e-6)


@needs("spandrel")
def test_no_seam_is_left_by_a_network_that_sees_a_few_pixels(tmp_path):
    save_file(compact(2), tmp_path / "net.safetensors")
    network = load_network(tmp_path / "net.safetensors")
    pixels, cpu = picture(150, 110), torch.device("cpu")
    whole = network.run(pixels.astype(np.float32) / 255, cpu)
    tiled = np.concatenate(list(in_tiles(lambda tile, left, top: network.run(tile, cpu), pixels, Tiles(48, 16), 2)))
    assert np.abs(whole - tiled).max() < 1e-5
