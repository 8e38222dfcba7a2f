"""Plans: seeds, batches and infotext entries."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from modules.core.plan import ModelRef
from modules.core.request import MAX_SEED, Request
from modules.core.settings import Settings
from modules.engine.entries import parameters, picture_parameters
from modules.engine.planner import Checkpoint, Checkpoints, batches, plan

ONE = Checkpoints(Checkpoint(ModelRef("/models/a.safetensors"), "a"))


def made(request: Request) -> list[tuple[int, int]]:
    return [(picture.seed, picture.subseed) for picture in plan(request, ONE, {}).pictures]


def test_seeds_count_up_from_the_first() -> None:
    assert made(Request(seed=5, subseed=8, batch_size=2, batch_count=2)) == [(5, 8), (6, 9), (7, 10), (8, 11)]


def test_with_variation_the_seed_stays_and_the_subseed_counts() -> None:
    assert made(Request(seed=5, subseed=8, subseed_strength=0.1, batch_count=3)) == [(5, 8), (5, 9), (5, 10)]


def test_seeds_wrap_at_the_end() -> None:
    assert made(Request(seed=MAX_SEED, subseed=0, batch_count=2)) == [(MAX_SEED, 0), (0, 1)]


@given(st.integers(1, 9), st.lists(st.sampled_from(["", "<lora:a:1>", "<lora:b:1>"]), min_size=1, max_size=20))
def test_batches_hold_every_picture_once_in_order_and_never_mix_tags(size: int, tags: list[str]) -> None:
    one = plan(Request(batch_size=size, batch_count=len(tags)), ONE, {})
    pictures = tuple(dataclasses.replace(picture, prompt=f"x {tag}")
                     for picture, tag in zip(one.pictures, tags, strict=False))
    cut = batches(dataclasses.replace(one, pictures=pictures))
    assert [index for batch in cut for index in batch] == list(range(len(tags)))
    assert all(len(batch) <= size and len({tags[index] for index in batch}) == 1 for batch in cut)


def test_the_infotext_has_the_usual_order_and_numbers_without_needless_zeros() -> None:
    request = Request(seed=1, guidance_scale=7.0, subseed_strength=0.25, seed_resize_from_w=64, seed_resize_from_h=32,
                      settings=Settings(CLIP_stop_at_last_layers=2, eta_ancestral=0.5, eta_noise_seed_delta=31337))
    entries = parameters(request, {"Model": "a", "VAE": "b.vae.pt"}, {"Word": "w"})
    assert list(entries) == [
        "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model", "VAE hash", "VAE",
        "Variation seed", "Variation seed strength", "Seed resize from", "Clip skip", "ENSD", "RNG", "Eta", "Word",
        "Version",
    ]
    assert (entries["CFG scale"], entries["Variation seed strength"], entries["Seed resize from"],
            entries["Clip skip"], entries["Eta"]) == ("7", "0.25", "64x32", "2", "0.5")


def test_settings_decide_what_is_written() -> None:
    off = {name: False for name in dataclasses.asdict(Settings()) if name.startswith("add_")}
    entries = parameters(Request(settings=Settings(**off)), {"Model": "a", "VAE": "b"}, {})
    assert list(entries) == ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "RNG"]


def test_each_picture_has_its_own_seeds_and_its_plugins_entries_before_the_version() -> None:
    one = plan(Request(seed=3, subseed=4, subseed_strength=0.5, batch_count=2), ONE, {})
    picture = dataclasses.replace(one.pictures[1], parameters={"Template": "{a|b}"})
    entries = picture_parameters(one, picture)
    assert (entries["Seed"], entries["Variation seed"]) == ("3", "5")
    assert list(entries)[-2:] == ["Template", "Version"]
