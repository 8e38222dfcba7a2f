import gc
import weakref

import pytest
import torch

from modules.runtime.memory import Models, component_bytes, resident

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


def test_resident_moves_components_and_puts_them_back(monkeypatch):
    moves = []

    class Part(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name, self.place, self.weight = name, torch.device("cpu"), torch.nn.Parameter(torch.zeros(1))

        def parameters(self, recurse=True):
            return iter([torch.empty(1, device="meta")] if self.place.type == "meta" else [self.weight])

        def to(self, device):
            moves.append((self.name, device.type))
            self.place = device
            return self

    class Model:
        modules = {name: Part(name) for name in ("unet", "vae")}

    with resident(Model, ("vae",), torch.device("cpu"), torch.device("meta")):
        assert moves == [("unet", "meta")]
    assert moves == [("unet", "meta"), ("unet", "cpu")]
    with pytest.raises(ValueError), resident(Model, ("unet",), torch.device("meta"), torch.device("cpu")):
        raise ValueError
    assert moves[2:] == [("unet", "meta"), ("unet", "cpu")]


def test_half_the_type_is_half_the_bytes():
    model = Held()
    model.modules["unet"].half()
    assert component_bytes(model) == {"unet": MEGABYTE // 2}
