import pytest
import torch

from modules.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 24), (8, 72), (72, 8)], ids=["square", "wide", "tall"])
def test_directions_stay_and_their_sizes_become_one(source, shape):
    matrices = torch.randn(3, *shape, generator=source)
    u, sizes, v = torch.linalg.svd(matrices, full_matrices=False)
    found = u.mT @ orthogonalise(matrices) @ v.mT
    assert (found - torch.diag_embed(found.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3
    large = sizes > 0.1 * sizes[:, :1]  # five iterations do not bring the smallest up to one
    reached = found.diagonal(dim1=1, dim2=2)[large]
    assert large.float().mean() > 0.8 and reached.min() > 0.5 and reached.max() < 1.3


def test_matrices_move_as_torch_s_muon_moves_them(source):
    """Torch's computes in bfloat16 and knows no convolutions: those are given to it as matrices."""
    start = [torch.randn(12, 40, generator=source), torch.randn(40, 12, generator=source),
             torch.randn(16, 6, 3, 3, generator=source)]
    ours = [torch.nn.Parameter(value.clone()) for value in start]
    theirs = [torch.nn.Parameter(value.flatten(1).clone()) for value in start]
    own = Muon([{"params": ours, "matrix": True}], 0.05, (0.9, 0.99), 0.1)
    reference = torch.optim.Muon(theirs, lr=0.05, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=source)
            other.grad = mine.grad.flatten(1).clone()
        own.step()
        reference.step()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        moved, wanted = mine.detach().flatten(1) - before.flatten(1), other.detach() - before.flatten(1)
        assert (moved - wanted).norm() < 0.02 * wanted.norm()


def test_all_else_moves_as_adamw_moves_it(source):
    start = torch.randn(5, generator=source)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    matrix = torch.nn.Parameter(torch.randn(4, 4, generator=source))
    own = Muon([{"params": [matrix], "matrix": True}, {"params": [ours]}], 0.01, (0.9, 0.99), 0.1)
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(3):
        matrix.grad = torch.randn(4, 4, generator=source)
        ours.grad = torch.randn(5, generator=source)
        theirs.grad = ours.grad.clone()
        own.step()
        reference.step()
    assert torch.equal(ours, theirs) and not torch.equal(ours, start)
