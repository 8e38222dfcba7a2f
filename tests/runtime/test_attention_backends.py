import sys
import types

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from modules.core.settings import ATTENTION
from modules.launcher.commands import parse
from modules.runtime import attention_backends
from modules.runtime.attention_backends import backends, chunking_from, kernel, preferred_by, shape_class, usable
from modules.runtime.attention_choice import open_attention
from modules.runtime.attention_chunks import Chunking

INSTALLED = {"xformers", "flash_attn", "sageattention"}
F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


@pytest.fixture
def everything_installed(monkeypatch):
    monkeypatch.setattr(attention_backends.importlib.util, "find_spec", lambda name: name in INSTALLED or None)


def names(kind, capability=(0, 0), flags=(), **wanted):
    found = backends({**dict.fromkeys(flags, True)})
    return {backend.name for backend in found if usable(backend, kind, capability)
            and all(getattr(backend, name) == value for name, value in wanted.items())}


def by_name(name, flags=None):
    return next(backend for backend in backends(flags or {}) if backend.name == name)


def qkv(rows=2, heads=3, tokens=7, keys=5, width=8):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, heads, count, width, generator=generator) for count in (tokens, keys, keys)]


def shape(width, dtype=F16):
    return shape_class(torch.empty(2, 8, 64, width, dtype=dtype, device="meta"), torch.empty(2, 8, 77, width))


def test_what_is_measured_on_each_device(everything_installed):
    assert names("cpu", automatic=True) == names("mps", automatic=True) == names("xpu", automatic=True) == {"sdp"}
    assert names("cuda", (6, 1), automatic=True) == {"sdp", "efficient", "xformers"}
    assert names("cuda", (9, 0), automatic=True) == {"sdp", "cudnn", "flash", "efficient", "xformers", "flash-attn"}
    assert names("rocm", (11, 0), automatic=True) == {"sdp", "flash", "efficient", "flash-attn"}
    assert "xformers" not in names("cuda", (9, 0), ["disable_xformers"], automatic=True)


def test_packages_are_offered_only_where_they_are_installed(monkeypatch):
    assert {"xformers", "flash-attn", "sage"} & names("cpu") == set()
    monkeypatch.setattr(attention_backends.importlib.util, "find_spec", lambda name: None)
    assert {"xformers", "flash-attn", "sage"} & names("cuda", (9, 0)) == set()


def test_ways_without_a_kernel_work_on_every_device():
    for kind in ("cuda", "rocm", "xpu", "mps", "cpu"):
        assert {"sdp", "sub-quadratic", "Doggettx", "InvokeAI", "V1", "None", "float32"} <= names(kind)


def test_every_choice_of_the_setting_is_a_backend():
    choices = [title.partition(" - ")[0] for title in ATTENTION]
    assert choices[0] == "Automatic"
    assert set(choices[1:]) == {backend.name for backend in backends({})}


@pytest.mark.parametrize("words, name", [
    ([], ""), (["--xformers"], "xformers"), (["--force-enable-xformers"], "xformers"),
    (["--xformers-flash-attention"], "xformers"), (["--opt-sdp-attention"], "sdp"), (["--attention-pytorch"], "sdp"),
    (["--opt-sdp-no-mem-attention"], "sdp-no-mem"), (["--opt-sub-quad-attention"], "sub-quadratic"),
    (["--attention-quad"], "sub-quadratic"), (["--opt-split-attention"], "Doggettx"),
    (["--attention-split"], "Doggettx"), (["--opt-split-attention-v1"], "V1"),
    (["--opt-split-attention-invokeai"], "InvokeAI"), (["--disable-opt-split-attention"], "None"),
    (["--use-sage-attention"], "sage"), (["--sage"], "sage"), (["--use-flash-attention"], "flash-attn"),
    (["--opt-split-attention", "--xformers"], "xformers"),
])
def test_flags_prefer_a_backend(words, name):
    call = parse(words, {})
    assert preferred_by(vars(call.flags)) == name and call.warnings == ()
    assert not name or by_name(name)


def test_flags_cut_sub_quadratic_attention():
    assert chunking_from({}) == Chunking()
    flags = parse(["--sub-quad-q-chunk-size", "512", "--sub-quad-kv-chunk-size", "64", "--sub-quad-chunk-threshold",
                   "0"], {}).flags
    assert chunking_from(vars(flags)) == Chunking(512, 64, 0.0)


@pytest.mark.parametrize("name, suited, unsuited", [
    ("cudnn", [(64, F16), (128, BF16), (40, F16)], [(64, F32), (160, F16), (42, F16)]),
    ("flash", [(160, F16), (256, BF16)], [(512, F16), (64, F32)]),
    ("flash-attn", [(40, F16), (160, BF16)], [(512, F16), (64, F32)]),
    ("sage", [(40, F16), (128, BF16)], [(160, F16), (64, F32)]),
    ("xformers", [(512, F32), (40, F16)], []),
    ("efficient", [(512, F32), (40, F16)], []),
])
def test_what_each_kernel_takes(name, suited, unsuited):
    backend = by_name(name)
    assert all(backend.suits(shape(*case)) for case in suited)
    assert not any(backend.suits(shape(*case)) for case in unsuited)


def test_a_class_of_shapes_bounds_its_scores():
    for tokens, keys in ((1, 1), (63, 77), (64, 64), (4096, 4096)):
        q, k = torch.empty(2, 5, tokens, 8, dtype=F16), torch.empty(2, 5, keys, 8, dtype=F16)
        exact = 2 * 5 * tokens * keys * 2
        assert exact <= shape_class(q, k).score_bytes() <= 8 * exact
    assert shape_class(*qkv(tokens=65)[:2]) == shape_class(*qkv(tokens=128)[:2]) != shape_class(*qkv(tokens=64)[:2])


def test_a_kernel_is_confined_for_its_own_call_alone():
    from torch.nn.attention import _cur_sdpa_kernel_backends

    before = _cur_sdpa_kernel_backends()
    q, k, v = qkv()
    with sdpa_kernel(SDPBackend.MATH):
        expected = scaled_dot_product_attention(q, k, v)
    assert torch.equal(kernel(SDPBackend.MATH)(q, k, v), expected)
    with pytest.raises(RuntimeError):
        kernel(SDPBackend.CUDNN_ATTENTION)(q, k, v)
    assert _cur_sdpa_kernel_backends() == before


def tokens_first(query, key, value):
    """Attention of tensors [rows, tokens, heads, width], as xformers and flash-attn take them."""
    scores = torch.einsum("bmhk,bnhk->bhmn", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("bhmn,bnhk->bmhk", scores.softmax(-1), value)


def test_packages_get_tensors_in_their_own_layout(monkeypatch):
    given = []
    ops = types.SimpleNamespace(
        memory_efficient_attention=lambda q, k, v, op: given.append(op) or tokens_first(q, k, v),
        MemoryEfficientAttentionFlashAttentionOp="flash")
    sage = types.SimpleNamespace(sageattn=lambda q, k, v, tensor_layout, is_causal: (
        given.append((tensor_layout, is_causal)) or scaled_dot_product_attention(q, k, v)))
    monkeypatch.setitem(sys.modules, "xformers", types.SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=tokens_first))
    monkeypatch.setitem(sys.modules, "sageattention", sage)
    expected = scaled_dot_product_attention(*qkv())
    for name in ("xformers", "flash-attn", "sage"):
        torch.testing.assert_close(by_name(name).bind(0)(*qkv()), expected)
    torch.testing.assert_close(by_name("xformers", {"xformers_flash_attention": True}).bind(0)(*qkv()), expected)
    assert given == [None, ("HND", False), "flash"]


def test_a_card_is_measured_and_a_package_that_is_broken_is_left_out(everything_installed, monkeypatch, caplog):
    for name in INSTALLED:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    chooser = open_attention("cuda", (9, 0), {"xformers": True}, lambda: 1 << 30)
    monkeypatch.setattr(chooser, "_seconds", lambda run: 1.0)
    assert torch.equal(chooser.core(*qkv()), scaled_dot_product_attention(*qkv()))
    failed = {record.getMessage().split()[2] for record in caplog.records}
    assert "xformers" in failed and "sdp" not in failed
