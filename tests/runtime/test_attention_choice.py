import logging

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from modules.runtime.attention_backends import SDP, AttentionBackend, fixed
from modules.runtime.attention_choice import AttentionChooser, Trial, fastest, open_attention


class Operations(TorchDispatchMode):
    """Writes down the name of every operation."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Fake:
    """A backend with a counter that returns ``scale`` times the right result, or raises; its time is given."""

    def __init__(self, name, seconds=1.0, *, error=None, scale=1.0, **info):
        self.seconds, self.error, self.scale, self.calls = seconds, error, scale, 0
        self.backend = AttentionBackend(name, fixed(self), **{"automatic": True} | info)

    def __call__(self, q, k, v):
        self.calls += 1
        if self.error:
            raise self.error
        return scaled_dot_product_attention(q, k, v) * self.scale


class Clock:
    """Reads each fake's own time; it runs the function, as a real one does."""

    def __init__(self, *fakes):
        self.fakes, self.readings = fakes, 0

    def __call__(self, run):
        before = [fake.calls for fake in self.fakes]
        run()
        self.readings += 1
        (ran,) = [fake for fake, calls in zip(self.fakes, before, strict=True) if fake.calls > calls]
        return ran.seconds


def chooser(*fakes, preferred="", free=1 << 30):
    clock = Clock(*fakes)
    return AttentionChooser([fake.backend for fake in fakes], preferred, clock, lambda: free), clock


def qkv(tokens=8, width=4, dtype=torch.float32):
    return tuple(torch.randn(3, 1, 2, tokens, width, generator=torch.Generator().manual_seed(0)).to(dtype))


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_fastest_is_the_first_that_is_not_clearly_beaten():
    trials = [Trial(Fake(str(seconds)).backend, None, seconds) for seconds in (1.04, 1.2, 1.0)]
    assert fastest(trials).seconds == 1.04
    assert fastest(trials, margin=0.01).seconds == 1.0


def test_each_class_of_shapes_is_measured_once():
    slow, fast = Fake("slow", 2.0), Fake("fast", 1.0)
    attention, clock = chooser(slow, fast)
    expected = scaled_dot_product_attention(*qkv())
    for _ in range(5):
        assert torch.equal(attention.core(*qkv()), expected)
    assert clock.readings == 2 and (slow.calls, fast.calls) == (2, 6)
    assert attention.chosen(*qkv()[:2]) == "fast" and attention.chosen(*qkv(tokens=100)[:2]) == ""
    attention.core(*qkv(tokens=5))
    assert clock.readings == 2
    for tensors in (qkv(tokens=16), qkv(width=8), qkv(dtype=torch.bfloat16), (qkv()[0], *qkv(tokens=3)[1:])):
        before = clock.readings
        attention.core(*tensors)
        assert clock.readings == before + 2


def test_after_measuring_a_call_is_one_call():
    slow, fast = Fake("slow", 2.0), Fake("fast", 1.0)
    attention, _ = chooser(slow, fast)
    tensors = qkv()
    attention.core(*tensors)
    with Operations() as plain:
        fast(*tensors)
    with Operations() as chosen:
        attention.core(*tensors)
    assert chosen.names == plain.names


@pytest.mark.parametrize("broken", [
    {"error": RuntimeError("no kernel for\nthis device")}, {"error": ImportError("no such package")},
    {"scale": float("nan")}, {"scale": float("inf")},
])
def test_what_fails_is_dropped_with_one_line(broken, caplog):
    first, second = Fake("first", 0.1, **broken), Fake("second", 1.0)
    attention, _ = chooser(first, second)
    for _ in range(3):
        assert torch.equal(attention.core(*qkv()), scaled_dot_product_attention(*qkv()))
    assert first.calls == 1 and len(lines(caplog)) == 1
    assert "first" in lines(caplog)[0] and "\n" not in lines(caplog)[0]


def test_a_package_that_cannot_be_imported_is_not_tried_for_other_shapes(caplog):
    first, second = Fake("first", error=ImportError("broken")), Fake("second")
    attention, _ = chooser(first, second)
    attention.prefer("first")
    attention.core(*qkv())
    attention.core(*qkv(tokens=100, width=8))
    assert first.calls == 1 and len(lines(caplog)) == 1


def test_a_failure_later_on_is_replaced_in_the_same_call(caplog):
    first, second = Fake("first", 0.1), Fake("second", 1.0)
    attention, _ = chooser(first, second)
    attention.core(*qkv())
    first.error = RuntimeError("the driver had enough")
    assert torch.equal(attention.core(*qkv()), scaled_dot_product_attention(*qkv()))
    calls = first.calls
    attention.core(*qkv())
    assert first.calls == calls and len(lines(caplog)) == 1


def test_a_preferred_backend_is_used_without_measuring():
    fast, wanted = Fake("fast", 0.1), Fake("wanted", 9.0)
    attention, clock = chooser(fast, wanted, preferred="wanted")
    attention.core(*qkv())
    assert clock.readings == 0 and (fast.calls, wanted.calls) == (0, 1)
    attention.prefer("fast - in words")
    attention.core(*qkv())
    assert (fast.calls, wanted.calls) == (1, 1)
    attention.prefer("Automatic")
    attention.core(*qkv())
    assert wanted.calls == 2


def test_what_does_not_suit_leaves_the_call_to_measurement():
    wanted = Fake("wanted", suits=lambda shape: shape.width == 64)
    slow, fast = Fake("slow", 2.0), Fake("fast", 1.0)
    attention, clock = chooser(slow, fast, wanted, preferred="wanted")
    attention.core(*qkv())
    assert clock.readings == 2 and wanted.calls == 0
    attention.core(*qkv(width=64))
    assert clock.readings == 2 and wanted.calls == 1


def test_what_is_not_there_counts_as_automatic(caplog):
    attention, _ = chooser(Fake("only"))
    for _ in range(3):
        attention.prefer("xformers")
    assert lines(caplog) == ["Attention by xformers is not available here; another is chosen automatically."]
    assert torch.equal(attention.core(*qkv()), scaled_dot_product_attention(*qkv()))


def test_all_scores_at_once_only_where_they_fit():
    first, second = Fake("first", quadratic=True), Fake("second", automatic=False)
    attention, _ = chooser(first, second, preferred="first", free=1 << 14)
    attention.prefer("first")
    attention.core(*qkv(tokens=8))
    assert first.calls == 1
    with pytest.raises(RuntimeError, match="No attention backend"):
        attention.core(*qkv(tokens=64))
    attention, _ = chooser(first, Fake("sdp"), preferred="first", free=1 << 14)
    attention.core(*qkv(tokens=64))
    assert first.calls == 1


def test_exhausted_memory_is_left_to_the_engine_and_not_held_against_a_backend(caplog):
    first, second = Fake("first", 0.1), Fake("second", 1.0)
    attention, _ = chooser(first, second)
    first.error = second.error = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        attention.core(*qkv())
    first.error = second.error = None
    attention.core(*qkv())
    first.error = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        attention.core(*qkv())
    first.error = None
    calls = second.calls
    attention.core(*qkv())
    assert second.calls == calls and lines(caplog) == []


def test_where_memory_is_short_for_one_another_computes_it(caplog):
    first, second = Fake("first", 0.1, error=torch.OutOfMemoryError("full")), Fake("second", 1.0)
    attention, _ = chooser(first, second)
    assert torch.equal(attention.core(*qkv()), scaled_dot_product_attention(*qkv()))
    assert lines(caplog) == []


def test_an_error_in_the_call_itself_is_raised_and_nothing_is_dropped(caplog):
    first, second = Fake("first", 0.1), Fake("second", 1.0)
    attention, _ = chooser(first, second)
    q, k, v = qkv()
    with pytest.raises(RuntimeError):
        attention.core(q, k[..., :3], v)
    attention.core(q, k, v)
    assert lines(caplog) == [] and first.calls > 1


def test_inputs_that_are_no_numbers_condemn_no_backend(caplog):
    first, second = Fake("first", 0.1), Fake("second", 1.0)
    attention, _ = chooser(first, second)
    q, k, v = qkv()
    assert torch.isnan(attention.core(q, k, v * float("nan"))).all()
    attention.core(q, k, v)
    calls = first.calls
    attention.core(q, k, v)
    assert first.calls == calls + 1 and lines(caplog) == []


def test_overflow_in_half_precision_ends_in_32_bits(caplog):
    found = open_attention("cpu", (0, 0), {"opt_split_attention": True}, lambda: 1 << 30)
    q, k, v = (tensor * 300 for tensor in qkv(dtype=torch.float16))
    out = found.core(q, k, v)
    expected = scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(out, expected.half(), rtol=1e-2, atol=1e-1)


def test_on_a_cpu_attention_is_pytorchs_own_function():
    assert open_attention("cpu", (0, 0), {}, lambda: 0).core is scaled_dot_product_attention
    assert AttentionChooser().core is scaled_dot_product_attention and AttentionChooser().chosen(*qkv()[:2]) == "sdp"
    assert AttentionChooser([SDP]).core is scaled_dot_product_attention
    assert open_attention("xpu", (0, 0), {}, lambda: 0).core is scaled_dot_product_attention


def test_on_metal_scores_that_do_not_fit_are_computed_in_pieces():
    for free, expected in ((1 << 30, "sdp"), (1 << 10, "sub-quadratic")):
        found = open_attention("mps", (0, 0), {}, lambda free=free: free)
        torch.testing.assert_close(found.core(*qkv(tokens=40)), scaled_dot_product_attention(*qkv(tokens=40)))
        assert found.chosen(*qkv(tokens=40)[:2]) == expected


@pytest.mark.parametrize("name", ["sdp-no-mem", "sub-quadratic", "Doggettx", "InvokeAI", "V1", "None"])
def test_every_choice_works_on_a_cpu(name):
    found = open_attention("cpu", (0, 0), {}, lambda: 1 << 30)
    found.prefer(name)
    assert found.core is not scaled_dot_product_attention
    torch.testing.assert_close(found.core(*qkv(tokens=40)), scaled_dot_product_attention(*qkv(tokens=40)))
    found.prefer("Automatic")
    assert found.core is scaled_dot_product_attention
