"""Plans: seeds, batches and infotext entries."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.plan import Bridge, ModelRef, Segment
from modules.core.request import MAX_SEED, Request
from modules.core.settings import Settings
from modules.engine.entries import before_hires, parameters, picture_parameters
from modules.engine.planner import Checkpoint, Checkpoints, batches, other_checkpoints, plan

A, B, R = (ModelRef(f"/models/{name}.safetensors") for name in "abr")
ONE = Checkpoints(Checkpoint(A, "a"))
THREE = Checkpoints(Checkpoint(A, "a"), Checkpoint(B, "b"), Checkpoint(R, "r"))


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


def test_a_sampler_that_looks_at_the_whole_batch_gets_one_picture_at_a_time() -> None:
    request = Request(batch_size=4, batch_count=2)
    assert [len(batch) for batch in batches(plan(request, ONE, {}))] == [4, 4]
    for values in ({"sampler": "DPM adaptive"}, {"enable_hr": True, "hr_sampler": "DPM adaptive"}):
        assert [len(batch) for batch in batches(plan(dataclasses.replace(request, **values), ONE, {}))] == [1] * 8


def test_without_hires_fix_there_is_one_pass_with_the_refiner_in_it() -> None:
    (base,) = plan(Request(refiner="r", refiner_switch_at=0.7, hr_checkpoint="b"), THREE, {}).passes
    assert base.segments == (Segment(A), Segment(R, 0.7)) and base.bridge is None


def test_the_hires_pass_is_as_the_first_but_for_what_is_given() -> None:
    request = Request(steps=9, sampler="Euler", schedule="Karras", guidance_scale=5.0, enable_hr=True)
    base, same = plan(request, ONE, {}).passes
    expected = dataclasses.replace(base, width=1024, height=1024, bridge=Bridge("latent", "Latent", 0.7, 1024, 1024))
    assert same == expected
    own = dataclasses.replace(
        request, hr_second_pass_steps=3, hr_sampler="DPM++ 2M Exponential", hr_guidance_scale=2.0, hr_prompt="p",
        hr_negative_prompt="n", hr_upscaler="Lanczos", hr_resize_x=800, hr_resize_y=640, denoising_strength=0.3)
    hires = plan(own, THREE, {}).passes[1]
    assert (hires.width, hires.height, hires.steps, hires.sampler, hires.schedule, hires.guidance.scale, hires.prompt,
            hires.negative_prompt) == (800, 640, 3, "DPM++ 2M", "Exponential", 2.0, "p", "n")
    assert hires.bridge == Bridge("pixels", "Lanczos", 0.3, 800, 800)
    assert hires.segments[0] == Segment(B)


@pytest.mark.parametrize(("where", "refined"), [
    ("first pass", (True, False)), ("second pass", (False, True)), ("both passes", (True, True))])
def test_the_setting_says_which_pass_has_the_refiner(where: str, refined: tuple[bool, bool]) -> None:
    request = Request(enable_hr=True, refiner="r", settings=Settings(hires_fix_refiner_pass=where))
    assert tuple(len(pass_.segments) == 2 for pass_ in plan(request, THREE, {}).passes) == refined


def test_the_entries_of_hires_fix_and_refiner_are_those_of_a1111() -> None:
    request = Request(
        enable_hr=True, denoising_strength=0.55, tiling=True, hr_checkpoint="b", hr_sampler="Heun",
        hr_schedule="Karras", hr_prompt="p", hr_negative_prompt="n", hr_guidance_scale=3.5, hr_second_pass_steps=7,
        refiner="r", settings=Settings(CLIP_stop_at_last_layers=2, hires_fix_refiner_pass="both passes",
                                       refiner_switch_by_sample_steps=True))
    entries = plan(request, THREE, {}).parameters
    names = list(entries)
    assert names[names.index("Model") + 1:-1] == [
        "Denoising strength", "Clip skip", "RNG", "Tiling", "Hires checkpoint", "Hires sampler", "Hires schedule type",
        "Hires prompt", "Hires negative prompt", "Hires CFG Scale", "Hires upscale", "Hires steps", "Hires upscaler",
        "Refiner", "Refiner switch at", "Hires refiner", "Refiner switch by sampling steps"]
    assert [entries[name] for name in names if name.startswith(("Hires ", "Refiner", "Denoising", "Tiling"))] == [
        "0.55", "True", "b", "Heun", "Karras", "p", "n", "3.5", "2", "7", "Latent", "r", "0.8", "both passes", "True"]
    resized = plan(dataclasses.replace(request, hr_resize_x=640), THREE, {}).parameters
    assert resized["Hires resize"] == "640x0" and "Hires upscale" not in resized


def test_what_does_not_take_part_has_no_entry() -> None:
    settings = Settings(hires_fix_refiner_pass="both passes")
    plain = plan(Request(settings=settings), ONE, {}).parameters
    assert not any(name.startswith(("Hires", "Refiner", "Denoising", "Tiling")) for name in plain)
    same = plan(Request(enable_hr=True, hr_sampler="DPM++ 2M", hr_schedule="Automatic", hr_guidance_scale=7.0), ONE, {})
    assert [name for name in same.parameters if name.startswith("Hires")] == ["Hires upscale", "Hires upscaler"]
    never = plan(Request(refiner="r", refiner_switch_at=1.0), THREE, {})
    assert "Refiner" not in never.parameters and len(never.passes[0].segments) == 1
    itself = plan(Request(refiner="a"), dataclasses.replace(ONE, refiner=ONE.base), {})
    assert not any(name.startswith("Refiner") for name in itself.parameters) and len(itself.passes[0].segments) == 1


def x4_entries(request: Request) -> list[str]:
    settings = dataclasses.replace(request.settings, x4_upscaler_steps=30, x4_upscaler_use_prompt=False)
    found = plan(dataclasses.replace(request, settings=settings), ONE, {}).parameters
    return [name for name in found if name.startswith("x4 ")]


@pytest.mark.parametrize("request_", [
    Request(), Request(enable_hr=True, hr_upscaler="Latent"), Request(enable_hr=True, hr_upscaler="Lanczos"),
    Request(hr_upscaler="x4"), Request(settings=Settings(upscaler_for_img2img="x4")), Request(kind="img2img"),
], ids=["plain", "latent", "lanczos", "no hires fix", "no img2img", "None"])
def test_settings_of_upscalers_have_no_entry_where_none_takes_part(request_: Request) -> None:
    assert x4_entries(request_) == []


@pytest.mark.parametrize("request_", [
    Request(enable_hr=True, hr_upscaler="x4"), Request(kind="img2img", settings=Settings(upscaler_for_img2img="x4")),
], ids=["hires fix", "img2img"])
def test_settings_of_upscalers_have_entries_where_one_takes_part(request_: Request) -> None:
    assert x4_entries(request_) == ["x4 upscaler steps", "x4 upscaler prompt"]


def test_checkpoints_that_entries_name_have_paths_for_their_hashes() -> None:
    both = plan(Request(enable_hr=True), THREE, {})
    assert other_checkpoints(both) == {"Hires checkpoint": B.checkpoint, "Refiner": R.checkpoint}
    assert other_checkpoints(plan(Request(enable_hr=True), ONE, {})) == {}


def test_the_picture_before_hires_fix_tells_of_the_first_pass_alone() -> None:
    request = Request(enable_hr=True, settings=Settings(hires_fix_refiner_pass="first pass"))
    assert before_hires(plan(request, THREE, {})) == {
        name: value for name, value in plan(dataclasses.replace(request, enable_hr=False), THREE, {}).parameters.items()
        if name != "Hires refiner"}
    assert "Refiner" not in before_hires(plan(Request(enable_hr=True), THREE, {}))


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
