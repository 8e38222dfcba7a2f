import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from modules.runtime.attention_chunks import Chunking, by_heads, chunked, in_float32, key_chunk, split, sub_quadratic

ROWS, HEADS, QUERIES, KEYS, WIDTH = 2, 3, 23, 17, 5


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def tensors(dtype=torch.float64, queries=QUERIES, keys=KEYS, scale=1.0):
    generator = torch.Generator().manual_seed(0)

    def draw(tokens):
        return (torch.randn(ROWS, HEADS, tokens, WIDTH, generator=generator, dtype=torch.float64) * scale).to(dtype)

    return draw(queries), draw(keys), draw(keys)


def plain(q, k, v):
    """Vaswani et al. (2017), equation 1, in float64."""
    scores = q.double() @ k.double().transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.softmax(-1) @ v.double()


@pytest.mark.parametrize("queries", [1, 7, QUERIES, 100])
@pytest.mark.parametrize("keys", [1, 4, KEYS, 100])
def test_any_chunks_give_plain_attention(queries, keys):
    q, k, v = tensors()
    torch.testing.assert_close(chunked(q, k, v, queries, keys), plain(q, k, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compute", [
    lambda q, k, v: sub_quadratic(q, k, v, Chunking(queries=8, keys=5), 0),
    lambda q, k, v: sub_quadratic(q, k, v, Chunking(), 0),
    lambda q, k, v: sub_quadratic(q, k, v, Chunking(), 1 << 30),
    lambda q, k, v: split(q, k, v, 0),
    lambda q, k, v: split(q, k, v, 1 << 30),
    by_heads,
], ids=["chunks", "no memory", "much memory", "split, no memory", "split, much memory", "heads"])
def test_every_way_of_cutting_is_exact(compute):
    q, k, v = tensors()
    torch.testing.assert_close(compute(q, k, v), plain(q, k, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_as_accurate_as_pytorch(dtype):
    q, k, v = tensors(dtype, queries=128, keys=128)
    expected = plain(q, k, v)
    ours = (sub_quadratic(q, k, v, Chunking(16, 16), 0).double() - expected).abs().max()
    theirs = (scaled_dot_product_attention(q, k, v).double() - expected).abs().max()
    assert ours <= 3 * max(theirs, torch.finfo(dtype).eps)
    assert sub_quadratic(q, k, v, Chunking(16, 16), 0).dtype == dtype


def test_scores_far_apart_do_not_overflow():
    q, k, v = tensors(torch.float32, scale=100.0)
    torch.testing.assert_close(chunked(q, k, v, 4, 3), plain(q, k, v).float(), rtol=1e-4, atol=1e-4)


def test_half_precision_scores_that_overflow_are_computed_in_32_bits():
    q, k, v = tensors(torch.float16, scale=300.0)
    assert not torch.isfinite(chunked(q, k, v, 100, 100)).all()
    wide = in_float32(q, k, v, 1 << 30)
    assert wide.dtype == torch.float16
    torch.testing.assert_close(wide, plain(q, k, v).half(), rtol=1e-2, atol=1e-1)


def test_gradients_pass_through():
    q, k, v = (tensor.requires_grad_() for tensor in tensors(queries=2, keys=3))
    assert torch.autograd.gradcheck(lambda *parts: chunked(*parts, 1, 2), (q, k, v))


@pytest.mark.parametrize("queries, keys", [(16, 16), (64, 8)])
def test_memory_is_bounded_by_the_chunk(queries, keys):
    q, k, v = tensors(torch.float32, queries=256, keys=256)
    with LargestTensor() as largest:
        sub_quadratic(q, k, v, Chunking(queries, keys), 0)
    assert largest.elements == max(ROWS * HEADS * queries * keys, q.numel())
    with LargestTensor() as whole:
        sub_quadratic(q, k, v, Chunking(256, 256), 0)
    assert whole.elements == ROWS * HEADS * 256 * 256


def test_splitting_takes_what_is_free():
    q, k, v = tensors(torch.float32, queries=256, keys=256)
    for free in (1 << 16, 1 << 18):
        with LargestTensor() as largest:
            split(q, k, v, free)
        assert free / 16 < largest.elements * 4 <= free / 2 or largest.elements == q.numel()


def test_keys_are_cut_as_the_flags_of_a1111_say():
    q, k, _ = tensors(torch.float16, queries=4096, keys=4096)
    scores = ROWS * HEADS * 4096 * 4096 * 2
    assert key_chunk(q, k, Chunking(keys=77), 0) == 77
    assert key_chunk(q, k, Chunking(keys=9999), 0) == 4096
    assert key_chunk(q, k, Chunking(threshold=0.5), 2 * scores) == 4096
    fitting = key_chunk(q, k, Chunking(queries=1024, threshold=0.5), scores // 4)
    assert fitting < 4096 and 3 * ROWS * HEADS * 1024 * fitting * 2 == pytest.approx(scores // 8, rel=0.01)
    assert key_chunk(q, k, Chunking(threshold=0.0), 2 * scores) == 64
