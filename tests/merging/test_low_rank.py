"""The best approximation of a rank, against NumPy's singular values in float64."""

import numpy as np
import pytest
import torch

from modules.merging import low_rank


def with_spectrum(out, inner, decay, seed=0):
    source = torch.Generator().manual_seed(seed)
    size = min(out, inner)
    left, right = (torch.linalg.qr(torch.randn(side, size, dtype=torch.float64, generator=source)).Q
                   for side in (out, inner))
    return (left * torch.arange(1, size + 1).double() ** -decay) @ right.T


@pytest.mark.parametrize("decay", [0.3, 1.0])
@pytest.mark.parametrize("out, inner, rank", [(320, 400, 8), (500, 300, 32), (40, 30, 30), (24, 60, 12)])
def test_it_is_as_good_as_that_of_all_singular_values(out, inner, rank, decay):
    matrix = with_spectrum(out, inner, decay)
    found = low_rank.spectrum(matrix.float(), rank)
    up, down = low_rank.factors(found)
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    best = np.sqrt((values[rank:] ** 2).sum())
    error = float((matrix - up.double() @ down.double()).norm())
    assert up.shape == (out, rank) and down.shape == (rank, inner)
    assert error <= best * 1.002 + 1e-6 * np.linalg.norm(values)
    np.testing.assert_allclose(found.values.numpy(), values[:rank], rtol=2e-2)
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-4)


def test_the_same_matrix_gives_the_same():
    matrix = with_spectrum(300, 320, 0.3).float()
    before = torch.random.get_rng_state()
    assert torch.equal(low_rank.spectrum(matrix, 4).values, low_rank.spectrum(matrix, 4).values)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_product_is_never_multiplied_out_and_gives_the_same():
    up, down = torch.randn(50, 12).double(), torch.randn(12, 70).double()
    found = low_rank.of_product(up, down, 5)
    values = np.linalg.svd((up @ down).numpy(), compute_uv=False)
    np.testing.assert_allclose(found.values.numpy(), values[:5])
    whole = low_rank.of_product(up, down, 12)
    torch.testing.assert_close((whole.left * whole.values) @ whole.right, up @ down)


def test_energy_decides_how_many_are_enough():
    values = torch.tensor([3.0, 2.0, 1.0])
    assert [low_rank.rank_for(values, 14.0, energy) for energy in (0.5, 9 / 14, 0.9, 13.5 / 14, 1.0)] == [1, 1, 2, 3, 3]


def test_the_largest_values_are_cut_off():
    found = low_rank.spectrum(with_spectrum(40, 30, 1.0).float(), 10)
    up, down = low_rank.factors(found)
    cut_up, cut_down = low_rank.factors(found, 0.9)
    limit = max(cut_up.abs().max(), cut_down.abs().max())
    everything = torch.cat([up.flatten(), down.flatten()]).abs()
    assert abs(float((everything > limit).float().mean()) - 0.1) < 0.01
    assert torch.equal(cut_up, up.clamp(-limit, limit)) and torch.equal(cut_down, down.clamp(-limit, limit))


def test_joined_products_are_their_sum():
    pairs = [(scale, torch.randn(6, rank).double(), torch.randn(rank, 8).double())
             for scale, rank in ((0.5, 2), (-1.5, 3), (2.0, 1))]
    up, down = low_rank.joined(pairs)
    assert up.shape == (6, 6)
    torch.testing.assert_close(up @ down, sum(scale * one @ other for scale, one, other in pairs))
