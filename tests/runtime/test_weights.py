import collections
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import InvalidModel
from modules.library.headers import inert_globals
from modules.runtime.weights import Target, assign, cast_on_call, is_finite, nbytes, open_weights

CPU = torch.device("cpu")


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Flatten(), torch.nn.Linear(32, 4),
        torch.nn.LayerNorm(4),
    )


def empty():
    with torch.device("meta"):
        return network()


def same(name):
    return name


@pytest.mark.parametrize("file", ["a.safetensors", "a.pt", "a.ckpt", "safetensors_misnamed.ckpt"])
def test_files_are_read_whatever_their_name(tmp_path, file):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.float16)}
    if "safetensors" in file:
        save_file(tensors, tmp_path / file)
    else:
        torch.save({"state_dict": tensors, "epoch": 4}, tmp_path / file)
    weights = open_weights(tmp_path / file)
    assert set(weights) == {"a", "b"} and len(weights) == 2
    assert all(torch.equal(weights[name], value) for name, value in tensors.items())


def test_old_torch_files_are_read(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(open_weights(tmp_path / "old.pt")["a"], torch.ones(3))


def test_shards_are_one_mapping(tmp_path):
    for name in ("a", "b"):
        save_file({name: torch.full((2,), ord(name) * 1.0)}, tmp_path / f"{name}.safetensors")
    weights = open_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert {name: weights[name][0].item() for name in weights} == {"a": 97.0, "b": 98.0}


def resident(kind):
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="reads Linux's memory accounting")
@pytest.mark.parametrize("file", ["big.safetensors", "big.ckpt"])
def test_weights_are_mapped_not_copied(tmp_path, file):
    size = 64 * 2**20
    tensors = {f"{i}.weight": torch.randn(1024, size // 16 // 4096) for i in range(16)}
    save_file(tensors, tmp_path / file) if file.endswith("safetensors") else torch.save(tensors, tmp_path / file)
    del tensors
    with torch.device("meta"):
        module = torch.nn.Sequential(*(torch.nn.Linear(size // 16 // 4096, 1024, bias=False) for _ in range(16)))
    before = resident("Anonymous:")
    assign(module, open_weights(tmp_path / file), same, Target(CPU, torch.float32), "It")
    assert nbytes(module) == size
    assert resident("Anonymous:") - before < size / 8


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(("content", "message"), [
    ({"a": Evil()}, "asks to run posix.system"), ([1, 2], "no named weights"), ({"state_dict": 3}, "no named weights"),
])
def test_what_is_not_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InvalidModel, match=message):
        open_weights(tmp_path / "x.pt")


def test_training_leftovers_are_inert(tmp_path):
    class ModelCheckpoint:
        pass
    ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    import sys
    import types
    module = types.ModuleType(ModelCheckpoint.__module__)
    module.ModelCheckpoint = ModelCheckpoint
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", ModelCheckpoint.__module__)
    sys.modules.update(dict.fromkeys(names, module))
    try:
        leftover = ModelCheckpoint()
        leftover.best = 3
        torch.save({"state_dict": collections.OrderedDict(a=torch.ones(1)), "callbacks": {ModelCheckpoint: leftover}},
                   tmp_path / "x.ckpt")
    finally:
        for name in names:
            del sys.modules[name]
    assert list(open_weights(tmp_path / "x.ckpt", inert=inert_globals())) == ["a"]
    with pytest.raises(InvalidModel, match="ModelCheckpoint"):
        open_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize("file", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_files_are_reported(tmp_path, file, share):
    tensors = {"a": torch.randn(200)}
    save_file(tensors, tmp_path / file) if file.endswith("safetensors") else torch.save(tensors, tmp_path / file)
    os.truncate(tmp_path / file, int(share * (tmp_path / file).stat().st_size))
    with pytest.raises(InvalidModel, match=f"{file} is damaged"):
        open_weights(tmp_path / file)


def test_a_file_that_is_gone_is_reported(tmp_path):
    with pytest.raises(InvalidModel, match="no longer"):
        open_weights(tmp_path / "x.safetensors")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_of_something_else_is_refused(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InvalidModel):
        open_weights(tmp_path / "x.ckpt")


def test_assigned_weights_compute_the_same():
    x = torch.randn(2, 3, 4, 4)
    module = empty()
    assign(module, network().state_dict(), same, Target(CPU, torch.float32), "It")
    assert torch.equal(module(x), network().eval()(x))
    assert not module.training and not any(weight.requires_grad for weight in module.parameters())


def test_matrices_and_pointwise_convolutions_are_interchangeable():
    with torch.device("meta"):
        linear, conv = torch.nn.Linear(3, 5), torch.nn.Conv2d(3, 5, 1)
    weight, bias = torch.randn(5, 3), torch.randn(5)
    assign(linear, {"weight": weight.view(5, 3, 1, 1), "bias": bias}, same, Target(CPU, torch.float32), "It")
    assign(conv, {"weight": weight, "bias": bias}, same, Target(CPU, torch.float32), "It")
    assert torch.equal(linear.weight, weight) and torch.equal(conv.weight.flatten(1), weight)


def test_missing_misshapen_and_non_finite_weights_are_named():
    good = network().state_dict()
    cases = {
        r"It lacks 2 tensors: 0.weight, 3.bias": {name: v for name, v in good.items()
                                                  if name not in ("0.weight", "3.bias")},
        r"3.weight 4x8 instead of 4x32": {**good, "3.weight": torch.zeros(4, 8)},
        r"4.bias holds NaN": {**good, "4.bias": torch.tensor([0, float("nan"), 0, 0])},
        r"0.bias holds NaN or infinity": {**good, "0.bias": torch.full((8,), float("-inf"))},
    }
    for message, weights in cases.items():
        with pytest.raises(InvalidModel, match=message):
            assign(empty(), weights, same, Target(CPU, torch.float32), "It")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
                                   torch.float8_e5m2])
def test_finiteness_in_every_type(dtype):
    for size in (1, 33, 1000):
        values = torch.linspace(-3, 3, size).to(dtype)
        assert is_finite(values)
        spoiled = values.float()
        spoiled[size // 2] = float("nan")
        assert not is_finite(spoiled.to(dtype))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_casting_at_each_call_equals_converting_once(stored):
    weights = {name: value.to(stored) for name, value in network().state_dict().items()}
    narrow, wide = empty(), empty()
    assign(narrow, weights, same, Target(CPU, torch.float32, None, 0), "It")
    assign(wide, weights, same, Target(CPU, torch.float32), "It")
    x = torch.randn(2, 3, 4, 4)
    held = dict(narrow.named_parameters())
    assert {weight.dtype for weight in held.values()} == {stored}
    assert torch.equal(narrow(x), wide(x))
    assert all(narrow.get_parameter(name) is weight for name, weight in held.items())


def test_layers_inside_layers_are_cast_too():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.inner = torch.nn.Parameter(torch.randn(4)), torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x) * self.scale

    torch.manual_seed(0)
    module, x = Scaled().half(), torch.randn(3, 4)
    expected = (x @ module.inner.weight.float().T + module.inner.bias.float()) * module.scale.float()
    cast_on_call(module, torch.float32)
    torch.testing.assert_close(module(x), expected)
    assert module.scale.dtype == module.inner.weight.dtype == torch.float16


def test_storage_type_and_threshold_decide_what_is_held():
    weights = network().state_dict()
    size = sum(value.nbytes for value in weights.values())
    for threshold, held in ((size, torch.bfloat16), (size + 1, torch.float32)):
        module = empty()
        assign(module, weights, same, Target(CPU, torch.float32, torch.bfloat16, threshold), "It")
        assert module[0].weight.dtype == held


def test_what_is_not_narrower_than_the_type_computed_in_is_converted_once():
    for stored, held in ((torch.float32, torch.float16), (torch.bfloat16, torch.float16),
                         (torch.float8_e4m3fn, torch.float8_e4m3fn)):
        weights = {name: value.to(stored) for name, value in network().state_dict().items()}
        module = empty()
        assign(module, weights, same, Target(CPU, torch.float16, None, 0), "It")
        assert {weight.dtype for weight in module.parameters()} == {held}
        assert bool(module[0]._forward_pre_hooks) is (held != torch.float16), "nothing is cast that need not be"


def test_eight_bits_hold_what_is_large_and_compute_with_its_rounded_values():
    weights, x = network().state_dict(), torch.randn(2, 3, 4, 4)
    module, expected = empty(), network()
    assign(module, weights, same, Target(CPU, torch.float32, torch.float8_e4m3fn, 0), "It")
    assert {weight.ndim: weight.dtype for weight in module.parameters()} == {
        1: torch.float32, 2: torch.float8_e4m3fn, 4: torch.float8_e4m3fn}
    for weight in expected.parameters():
        if weight.ndim > 1:
            weight.data = weight.data.to(torch.float8_e4m3fn).float()
    assert torch.equal(module(x), expected.eval()(x))


def test_weights_come_back_when_a_layer_raises():
    module = network().half()
    cast_on_call(module, torch.float32)
    with pytest.raises(RuntimeError):
        module(torch.randn(2, 9, 4, 4))
    assert module[0].weight.dtype == torch.float16
