import pytest
import torch

from modules.core.errors import InvalidModel
from modules.training import checkpoint


def test_pieces_are_small_and_give_back_every_bit(tmp_path):
    state = {"a": torch.randn(5_000_000), "b": {"step": 3, "names": ["x"]}}
    path = checkpoint.save(tmp_path, 7, state)
    pieces = sorted(path.glob("part-*.bin"))
    assert len(pieces) == 2 and max(piece.stat().st_size for piece in pieces) < 16 * 10**6
    read = checkpoint.newest(tmp_path)
    assert torch.equal(read["a"], state["a"]) and read["b"] == state["b"]


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"step": step}, keep=2)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-0000002", "step-0000010"]
    assert checkpoint.newest(tmp_path) == {"step": 10}


def test_an_interrupted_write_is_not_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path, 1, {"step": 1})
    torn = tmp_path / ".writing-0000002"
    torn.mkdir()
    (torn / "part-000.bin").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) == {"step": 1}
    checkpoint.save(tmp_path, 2, {"step": 2})
    assert not torn.exists() and checkpoint.newest(tmp_path) == {"step": 2}


def test_a_damaged_piece_is_named(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"a": torch.zeros(10)})
    (path / "part-000.bin").write_bytes(b"other")
    with pytest.raises(InvalidModel, match="part-000"):
        checkpoint.newest(tmp_path)


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "none") is None
