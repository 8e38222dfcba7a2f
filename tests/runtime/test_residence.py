import gc

import pytest
import torch

from modules.runtime.residence import (
    bring,
    cast_bytes,
    is_away,
    layer_bytes,
    layers_of,
    send_home,
    settle,
    stream,
    visiting,
)
from modules.runtime.weights import cast_on_call
from tests.fixtures.fake_device import FakeDevice


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(32, 4)
    ).eval().requires_grad_(False)


def test_layers_are_those_with_tensors_of_their_own():
    module = network()
    assert layers_of(module) == [module[0], module[1], module[3]]
    assert [layer_bytes(layer) for layer in layers_of(module)] == [4 * 224, 4 * 32 + 8, 4 * 132]


def test_leaving_the_device_gives_back_the_very_memory_that_was_there():
    device, module = FakeDevice(10**6), network()
    weights = dict(module.named_parameters())
    places = {name: weight.data_ptr() for name, weight in weights.items()}
    for layer in layers_of(module):
        bring(layer, device.copy)
        bring(layer, device.copy)
    assert all(is_away(layer) for layer in layers_of(module))
    assert device.used == device.copied == sum(layer_bytes(layer) for layer in layers_of(module))
    assert all(weights[name].data_ptr() != place for name, place in places.items())
    for layer in layers_of(module):
        send_home(layer)
    assert device.used == 0 and not any(is_away(layer) for layer in layers_of(module))
    assert {name: weight.data_ptr() for name, weight in module.named_parameters()} == places
    assert all(module.get_parameter(name) is weight for name, weight in weights.items())


def test_what_was_converted_on_the_device_stays_converted():
    device, module = FakeDevice(10**6), torch.nn.Linear(2, 2).half()
    bring(module, device.copy)
    module.float()
    expected = module.weight.clone()
    settle(module.weight)
    assert module.weight.dtype == torch.float32 and torch.equal(module.weight, expected)


@pytest.mark.parametrize("held", [torch.float32, torch.float8_e4m3fn])
def test_streamed_layers_compute_the_same_and_are_there_only_for_their_call(held):
    device, module, x = FakeDevice(10**6), network(), torch.randn(2, 3, 4, 4)
    module[0].to(held)
    cast_on_call(module, torch.float32)
    expected = module(x)
    bring(module[0], device.copy)
    handles = stream([module[1], module[3]], device.copy)
    resident = device.used
    assert torch.equal(module(x), expected)
    assert device.used == resident and device.peak == resident + layer_bytes(module[3])
    with pytest.raises(RuntimeError):
        module[3](torch.randn(2, 5))
    assert device.used == resident
    for handle in handles:
        handle.remove()
    module(x)
    assert device.copied == resident + 2 * layer_bytes(module[3]) + layer_bytes(module[1])


def test_copies_go_with_the_module():
    device, module = FakeDevice(10**6), network()
    for layer in layers_of(module):
        bring(layer, device.copy)
    del module, layer
    gc.collect()
    assert device.used == 0


def test_a_visit_ends_where_it_began():
    device, module = FakeDevice(10**6), network()
    places = [weight.data_ptr() for weight in module.parameters()]
    with pytest.raises(ValueError), visiting(module, device.copy):
        assert device.used == sum(layer_bytes(layer) for layer in layers_of(module))
        raise ValueError
    assert device.used == 0 and [weight.data_ptr() for weight in module.parameters()] == places
    with visiting(module, lambda tensor: tensor.to("cpu")):
        assert [weight.data_ptr() for weight in module.parameters()] == places


def test_bytes_of_cast_weights_are_those_of_the_largest_layer():
    module = network()
    assert cast_bytes(module, torch.float32) == 0
    assert cast_bytes(module.half(), torch.float32) == 4 * 224
