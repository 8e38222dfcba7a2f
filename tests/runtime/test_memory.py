import gc
import weakref
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import OutOfMemory
from modules.runtime import memory
from modules.runtime.device import DeviceInfo, Placement
from modules.runtime.memory import Models, component_bytes
from modules.runtime.patches import Applied, WeightDelta, apply, undo
from tests.fixtures.fake_device import FakeDevice

MEGABYTE = 2**20


class Held:
    def __init__(self, megabytes=1):
        self.modules = {"unet": torch.nn.Linear(512 * megabytes, 512, bias=False)}


def refuse():
    raise AssertionError("loaded again")


def test_the_least_recently_used_go():
    models = Models(3 * MEGABYTE)
    a = models.get("a", Held)
    for key in "bc":
        models.get(key, Held)
    assert models.get("a", refuse) is a and models.keys() == ("b", "c", "a")
    models.get("d", Held)
    assert models.keys() == ("c", "a", "d") and models.held_bytes() == 3 * MEGABYTE


def test_room_is_made_before_loading():
    models = Models(3 * MEGABYTE)
    old = weakref.ref(models.get("a", lambda: Held(2)))

    def load():
        assert old() is None
        return Held(2)
    assert models.get("b", load, expected_bytes=2 * MEGABYTE).modules
    assert models.keys() == ("b",)


def test_a_model_larger_than_the_budget_stays_while_in_use():
    models = Models(0)
    model = models.get("a", Held)
    assert models.get("a", refuse) is model
    models.get("b", Held)
    assert models.keys() == ("b",)


def test_a_failed_load_leaves_nothing_behind():
    models = Models(MEGABYTE)
    with pytest.raises(ZeroDivisionError):
        models.get("a", lambda: 1 / 0)
    assert models.keys() == () and isinstance(models.get("a", Held), Held)


def test_switching_back_and_forth_frees_what_was_held():
    models, seen = Models(MEGABYTE), []
    for key in "ababab":
        seen.append(weakref.ref(models.get(key, Held)))
    gc.collect()
    assert [reference() is not None for reference in seen] == [False] * 5 + [True]
    models.free()
    assert seen[-1]() is None and models.held_bytes() == 0


def test_component_bytes_count_buffers():
    model = Held()
    model.modules["vae"] = torch.nn.BatchNorm1d(4)
    assert component_bytes(model) == {"unet": MEGABYTE, "vae": 2 * 16 + 2 * 16 + 8}


def test_half_the_type_is_half_the_bytes():
    model = Held()
    model.modules["unet"].half()
    assert component_bytes(model) == {"unet": MEGABYTE // 2}


def test_a_limit_counts_checkpoints():
    models = Models(10 * MEGABYTE)
    first = weakref.ref(models.get("a", Held, limit=2))
    models.get("b", Held, limit=2)

    def load():
        assert first() is None
        return Held()
    models.get("c", load, limit=2)
    assert models.keys() == ("b", "c")
    models.get("c", refuse, limit=1)
    assert models.keys() == ("c",)
    models.get("d", Held)
    assert models.keys() == ("c", "d")


class Model:
    """A model of seeded linear layers; each component is a list of widths, and a layer has width * 4 + 4 floats."""

    def __init__(self, **components):
        self.applied = Applied()
        self.modules = {name: torch.nn.Sequential(*(torch.nn.Linear(width, 4) for width in widths))
                        for name, widths in components.items()}
        self.work = lambda: None
        for module in self.modules.values():
            module.requires_grad_(False).eval()
            for layer in module:
                layer.register_forward_hook(lambda *_: self.work())

    def bytes(self, name):
        return component_bytes(self)[name]

    def outputs(self, name):
        """Call every layer, as a network does; ``work`` runs inside each call."""
        return [layer(torch.ones(layer.in_features)) for layer in self.modules[name]]


rows = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(rows, rows, rows), min_size=1, max_size=3), st.integers(100, 6000), st.data())
def test_a_device_of_the_budget_s_size_never_runs_out_and_nothing_computes_differently(shapes, budget, data):
    device = FakeDevice(budget)
    models = Models(10**9, device.accelerator())
    kept = [models.get(index, lambda row=row: Model(text=row[0], unet=row[1], vae=row[2]))
            for index, row in enumerate(shapes)]
    for _ in range(data.draw(st.integers(1, 8))):
        model, name = data.draw(st.sampled_from(kept)), data.draw(st.sampled_from(["text", "unet", "vae"]))
        workings = sorted(data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=2)), reverse=True)
        expected = [torch.nn.functional.linear(torch.ones(layer.in_features), layer.weight, layer.bias)
                    for layer in model.modules[name]]
        try:
            with mock.patch.object(memory, "release_memory", refuse):  # it is not tried twice
                working = models.need(model, [name], workings)
        except OutOfMemory:
            least = [16 * layer.in_features + 16 for layer in model.modules[name]]
            assert least[0] + max(least[1:], default=0) + workings[-1] > budget
            continue
        model.work = lambda working=working: device.work(working)
        if model.bytes(name) + working <= budget:
            copied = device.copied
            model.outputs(name)
            assert device.copied == copied
        assert all(map(torch.equal, model.outputs(name), expected))
    assert models.device_bytes() == device.used
    with mock.patch.object(memory, "release_memory"):  # collecting garbage takes longer than all the rest
        models.free()
    assert device.used == 0


def test_several_components_are_there_together():
    model, device = Model(text_encoder=[3], text_encoder_2=[5], unet=[9]), FakeDevice(10**6)
    models = Models(10**9, device.accelerator())
    models.need(model, ["text_encoder", "text_encoder_2"])
    assert device.used == model.bytes("text_encoder") + model.bytes("text_encoder_2")
    models.need(model, ["unet"])
    models.release()
    assert device.used == model.bytes("unet")


def test_without_keeping_only_what_is_needed_is_there():
    model, device = Model(text_encoder=[3], unet=[9]), FakeDevice(10**6)
    models = Models(10**9, device.accelerator(keep=False))
    for name in model.modules:
        models.need(model, [name])
        assert device.used == model.bytes(name)
    models.rest()
    assert device.used == 0


def test_memory_that_others_took_since_is_respected():
    model, device = Model(unet=[40, 40, 40]), FakeDevice(4000)
    device.used = others = 4000 - model.bytes("unet") + 4
    Models(10**9, device.accelerator(10**6)).need(model, ["unet"])
    assert device.used == others + model.bytes("unet") // 3
    assert len(model.outputs("unet")) == 3 and device.peak <= 4000


def test_a_device_that_has_less_than_it_says_is_cleared_and_tried_once_more():
    old, new = Model(unet=[40]), Model(unet=[40])
    device = FakeDevice(old.bytes("unet") + 8)
    models = Models(10**9, memory.Accelerator(10**6, device.copy, lambda: 10**6))
    models.need(old, ["unet"])
    models.need(new, ["unet"])
    assert device.used == new.bytes("unet")
    with pytest.raises(torch.OutOfMemoryError):
        models.need(Model(unet=[50]), ["unet"])
    models.need(new, ["unet"])


def test_a_budget_too_small_for_a_layer_says_how_much_it_takes():
    model, device = Model(unet=[4]), FakeDevice(10**9)
    with pytest.raises(OutOfMemory, match="at least 2.00 GiB"):
        Models(10**9, device.accelerator(10)).need(model, ["unet"], (2**31, 2**31))
    assert device.used == 0


def test_patches_follow_the_weights_and_undoing_is_exact_wherever_they_are():
    model, device = Model(unet=[6, 7], vae=[40]), FakeDevice(10**6)
    models = Models(10**9, device.accelerator())
    original = model.modules["unet"][1].weight
    before, place = original.clone(), original.data_ptr()
    patch = WeightDelta("unet", "1.weight", "lora", 0.5, torch.ones_like)
    models.need(model, ["unet"])
    size = device.used
    apply(model, [patch])
    models.need(model, ["unet"])
    # The original waits at home: the device holds the patched weight alone.
    assert device.used == size and torch.equal(model.modules["unet"][1].weight, before + 0.5)
    models.need(model, ["vae"], (10**6 - model.bytes("vae"),))
    assert device.used == model.bytes("vae") and torch.equal(model.modules["unet"][1].weight, before + 0.5)
    models.need(model, ["unet"])
    undo(model)
    models.need(model, ["unet"])
    assert device.used <= size + model.bytes("vae") and torch.equal(original, before)
    models.free()
    assert model.modules["unet"][1].weight is original and original.data_ptr() == place


def test_only_a_device_with_memory_of_its_own_is_an_accelerator():
    info = DeviceInfo("cuda", memory=8 * 2**30)
    found = memory.accelerator(Placement(torch.device("cuda", 0)), info, {"always_offload_from_vram": True})
    assert found is not None and found.budget == 7 * 2**30 and not found.keep
    for device in ("cpu", "mps"):
        assert memory.accelerator(Placement(torch.device(device)), info, {}) is None
    assert Models().need(Model(unet=[1]), ["unet"], (5, 3)) == 5
