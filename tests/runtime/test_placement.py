"""The plan of moves, carried out on a device that only counts bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import OutOfMemory
from modules.runtime.placement import (
    TILE_PIXELS,
    Component,
    Held,
    Schedule,
    coding_bytes,
    minimum,
    sampling_bytes,
    schedule,
)


class CountingDevice:
    """Carries out schedules; ``peak`` is the most bytes that were ever on it, work and visiting layers included."""

    def __init__(self, components):
        self.components = {item.key: item for item in components}
        self.on, self.peak, self.moved = {}, 0, 0

    def held(self):
        return [Held(self.components[key], layers) for key, layers in self.on.items() if layers]

    def used(self):
        return sum(item.bytes for item in self.held())

    def run(self, plan: Schedule, wanted):
        for move in plan.moves:
            item = self.components[move.key]
            self.moved += item.bytes(move.layers - self.on.get(move.key, frozenset()))
            self.on[move.key] = move.layers
            self.peak = max(self.peak, self.used())
        for item in wanted:  # the most recently used are last
            self.on[item.key] = self.on.pop(item.key, frozenset())
        away = [item.layers[index] for item in wanted for index in item.all() - self.on[item.key]]
        self.peak = max(self.peak, self.used() + max(away, default=0) + plan.working)


sizes = st.lists(st.integers(1, 60), min_size=1, max_size=12).map(tuple)
models = st.lists(sizes, min_size=1, max_size=6).map(
    lambda rows: [Component(index, row) for index, row in enumerate(rows)]
)


@settings(max_examples=400, deadline=None)
@given(models, st.data(), st.integers(0, 400))
def test_the_peak_never_exceeds_the_budget(components, data, budget):
    device = CountingDevice(components)
    for _ in range(data.draw(st.integers(1, 8))):
        wanted = data.draw(st.lists(st.sampled_from(components), min_size=1, max_size=2, unique=True))
        workings = data.draw(st.lists(st.integers(0, 150), min_size=1, max_size=2).map(lambda w: sorted(w)[::-1]))
        keep = data.draw(st.booleans())
        before = device.used()
        try:
            plan = schedule(device.held(), wanted, workings, budget, keep)
        except OutOfMemory:
            assert minimum(wanted, workings[-1]) > budget
            continue
        device.run(plan, wanted)
        assert device.peak <= budget
        assert plan.working == next(w for w in workings if minimum(wanted, w) <= budget)
        whole = sum(item.bytes() for item in wanted)
        if whole + plan.working <= budget:
            assert all(device.on[item.key] == item.all() for item in wanted)
        if before + whole + plan.working <= budget and keep:
            assert device.used() >= before
        if not keep:
            assert {item.component.key for item in device.held()} <= {item.key for item in wanted}


@settings(max_examples=200, deadline=None)
@given(sizes, st.integers(0, 60))
def test_the_least_budget_works_and_one_byte_less_is_an_error(row, working):
    item = Component("unet", row)
    least = minimum([item], working)
    device = CountingDevice([item])
    device.run(schedule([], [item], (working,), least), [item])
    assert device.peak <= least
    with pytest.raises(OutOfMemory, match="at least"):
        schedule([], [item], (working,), least - 1)


def test_the_error_names_the_least_budget():
    with pytest.raises(OutOfMemory, match=r"at least 3\.00 GiB .*; 2\.50 GiB") as caught:
        schedule([], [Component("unet", (2**30, 2**30))], (2**30,), 5 * 2**29)
    assert "--vram-budget" in caught.value.hint


def test_what_was_used_longest_ago_leaves_first_and_only_as_much_as_must():
    text, unet, vae = Component("text", (10, 10)), Component("unet", (30, 30, 30)), Component("vae", (20,))
    held = [Held(text, text.all()), Held(unet, unet.all())]
    plan = schedule(held, [vae], (25,), 120)
    assert [(move.key, set(move.layers)) for move in plan.moves] == [
        ("text", set()), ("unet", {0, 1}), ("vae", {0})
    ]
    again = schedule([Held(unet, frozenset({0, 1})), Held(vae, vae.all())], [unet], (10,), 120)
    assert [(move.key, set(move.layers)) for move in again.moves] == [("unet", {0, 1, 2})]


def test_nothing_moves_when_everything_is_there():
    unet, vae = Component("unet", (30,)), Component("vae", (20,))
    assert schedule([Held(unet, unet.all()), Held(vae, vae.all())], [unet], (50,), 100).moves == ()


def test_a_component_that_does_not_fit_keeps_its_first_layer_and_the_largest_beside_the_place_to_bring_others():
    def residents(row, budget):
        return schedule([], [Component("unet", row)], (0,), budget).moves[0].layers

    assert residents((1, 5, 5, 3, 2), 11) == {0, 1}
    assert residents((1, 5, 5, 3, 2), 15) == {0, 1, 2}
    assert residents((1, 5, 5, 3, 2), 16) == {0, 1, 2, 3, 4}
    assert residents((1, 9, 5, 2), 12) == {0, 3}


def test_tiles_are_taken_only_where_the_whole_does_not_fit():
    vae = Component("vae", (10, 10))
    whole, tiled = coding_bytes(4 * TILE_PIXELS, 2)
    assert whole == 4 * tiled
    assert schedule([], [vae], (whole, tiled), whole + 20).working == whole
    assert schedule([], [vae], (whole, tiled), whole + 19).working == tiled
    assert coding_bytes(64, 2)[0] == coding_bytes(64, 2)[1]


def test_working_memory_is_that_of_the_published_counts_with_a_margin_of_two():
    # Counted on meta tensors: 130 MiB for Stable Diffusion 1.5 at 512x512 with two rows, 1536 for the autoencoder.
    assert sampling_bytes(2 * 512 * 512, 2)[0] == pytest.approx(2 * 130 * 2**20, rel=0.01)
    assert 1536 * 2**20 < coding_bytes(1024 * 1024, 2)[0] < 2 * 1536 * 2**20
