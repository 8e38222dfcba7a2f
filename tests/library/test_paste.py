"""Pasting an infotext: typed, checked, with A1111's meaning of what is absent; nonsense is reported, not raised."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.request import Request, check
from modules.core.settings import with_values
from modules.library.infotext import Infotext, parse
from modules.library.paste import split_sampler, to_request_fields
from modules.library.paste_image import ABSENT

BASE = {"Steps": "20", "Sampler": "Euler a", "CFG scale": "7.5", "Seed": "123", "Size-1": "512", "Size-2": "768"}


def paste(**parameters: str) -> object:
    return to_request_fields(Infotext("a cat", "dog", {**BASE, **{key.replace("_", " "): value for key, value
                                                                   in parameters.items()}}))


def test_the_fields_of_a_picture() -> None:
    pasted = to_request_fields(Infotext("a cat", "dog", {
        **BASE, "Schedule type": "Karras", "Model hash": "6ce0161689", "Model": "v1-5", "VAE": "mse.pt",
        "Variation seed": "9", "Variation seed strength": "0.25", "Seed resize from-1": "256",
        "Seed resize from-2": "128", "Tiling": "True", "Version": "v1.10.1", "TI hashes": "a: b",
    }))
    assert pasted.fields == {
        "prompt": "a cat", "negative_prompt": "dog", "steps": 20, "sampler": "Euler a", "schedule": "Karras",
        "guidance_scale": 7.5, "seed": 123, "width": 512, "height": 768, "subseed": 9, "subseed_strength": 0.25,
        "seed_resize_from_w": 256, "seed_resize_from_h": 128, "model": "v1-5 [6ce0161689]", "vae": "mse.pt",
        "tiling": True, "restore_faces": False, "refiner": "", "enable_hr": False, **ABSENT,
    }
    assert pasted.extras == {"Version": "v1.10.1", "TI hashes": "a: b"}
    assert pasted.skipped == ()
    assert check(Request(**pasted.fields)).sampler == "Euler a"


def test_what_absence_means() -> None:
    pasted = paste()
    assert {name: pasted.fields[name] for name in ("schedule", "subseed", "subseed_strength", "seed_resize_from_w")} \
        == {"schedule": "Automatic", "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_w": 0}
    assert pasted.settings["randn_source"] == "GPU"
    expected = {"CLIP_stop_at_last_layers": 1, "emphasis": "Original", "sigma_min": 0.0, "sigma_max": 0.0, "rho": 0.0,
                "eta_noise_seed_delta": 0, "use_old_scheduling": False, "eta_ancestral": 1.0}
    assert {name: pasted.settings[name] for name in expected} == expected
    assert "model" not in pasted.fields and "vae" not in pasted.fields


HIRES = {"Denoising strength": "0.55", "Hires upscale": "1.5", "Hires steps": "12", "Hires upscaler": "Lanczos"}


def test_hires_fix_and_refiner_are_read_with_their_defaults() -> None:
    pasted = to_request_fields(Infotext("a cat", "", {**BASE, **HIRES, "Refiner": "sd_xl_refiner [7440042bbd]",
                                                      "Refiner switch at": "0.75"}))
    expected = {
        "enable_hr": True, "denoising_strength": 0.55, "hr_scale": 1.5, "hr_second_pass_steps": 12,
        "hr_upscaler": "Lanczos", "hr_resize_x": 0, "hr_resize_y": 0, "hr_checkpoint": "", "hr_sampler": "",
        "hr_schedule": "", "hr_prompt": "", "hr_negative_prompt": "", "hr_guidance_scale": 0.0,
        "refiner": "sd_xl_refiner [7440042bbd]", "refiner_switch_at": 0.75,
    }
    assert {name: pasted.fields[name] for name in expected} == expected
    assert pasted.extras == {} and pasted.skipped == ()


def test_every_hires_entry_is_read() -> None:
    pasted = to_request_fields(Infotext("a cat", "", {
        **BASE, "Denoising strength": "0.7", "Hires resize-1": "1024", "Hires resize-2": "0",
        "Hires checkpoint": "other [0123456789]", "Hires sampler": "DPM++ 2M", "Hires schedule type": "Karras",
        "Hires prompt": "a cat, fur", "Hires negative prompt": "blur", "Hires CFG Scale": "4.5"}))
    expected = {
        "enable_hr": True, "hr_resize_x": 1024, "hr_resize_y": 0, "hr_upscaler": "Latent",
        "hr_checkpoint": "other [0123456789]", "hr_sampler": "DPM++ 2M", "hr_schedule": "Karras",
        "hr_prompt": "a cat, fur", "hr_negative_prompt": "blur", "hr_guidance_scale": 4.5,
    }
    assert {name: pasted.fields[name] for name in expected} == expected


@pytest.mark.parametrize(("first_pass", "size", "expected"), [
    (("512", "384"), ("1024", "768"), (512, 384)),
    # 0x0 left the choice to the program: about 512 x 512 pixels, in multiples of 64.
    (("0", "0"), ("1024", "1024"), (512, 512)),
    (("0", "0"), ("1024", "1536"), (448, 640)),
    (("0", "0"), ("1920", "1080"), (704, 384)),
])
def test_old_hires_pictures_give_the_size_of_their_first_pass(first_pass, size, expected) -> None:
    pasted = to_request_fields(Infotext("x", "", {
        **BASE, "Size-1": size[0], "Size-2": size[1], "Denoising strength": "0.7",
        "First pass size-1": first_pass[0], "First pass size-2": first_pass[1]}))
    assert (pasted.fields["width"], pasted.fields["height"]) == expected
    assert (pasted.fields["hr_resize_x"], pasted.fields["hr_resize_y"]) == tuple(map(int, size))
    assert pasted.fields["enable_hr"] is True and pasted.extras == {} and pasted.skipped == ()


def test_a_denoising_strength_alone_is_that_of_img2img() -> None:
    pasted = paste(Denoising_strength="0.3")
    assert pasted.fields["enable_hr"] is False and pasted.fields["denoising_strength"] == 0.3


@pytest.mark.parametrize(("key", "text", "reason"), [
    ("Hires upscale", "99", "hr_scale must be from 1"), ("Hires steps", "-1", "hr_second_pass_steps must be"),
    ("Hires resize-1", "99999", "hr_resize_x must be"), ("Hires resize-1", "8", "Hires fix cannot make 8x8"),
])
def test_hires_fix_with_nonsense_is_off_and_reported(key: str, text: str, reason: str) -> None:
    pasted = to_request_fields(Infotext("x", "", {**BASE, **HIRES, key: text}))
    assert pasted.fields["enable_hr"] is False and reason in pasted.skipped[0]
    check(dataclasses.replace(Request(), **pasted.fields))


def test_a_prompt_alone_changes_nothing_else() -> None:
    pasted = to_request_fields(parse("just words"))
    assert (pasted.fields, pasted.settings) == ({"prompt": "just words", "negative_prompt": ""}, {})


@pytest.mark.parametrize(("key", "text", "name", "value"), [
    ("Clip skip", "2", "CLIP_stop_at_last_layers", 2),
    ("RNG", "NV", "randn_source", "NV"),
    ("RNG", "CPU", "randn_source", "CPU"),
    ("ENSD", "31337", "eta_noise_seed_delta", 31337),
    ("Eta", "0.67", "eta_ancestral", 0.67),
    ("Emphasis", "No norm", "emphasis", "No norm"),
    ("Discard penultimate sigma", "True", "always_discard_next_to_last_sigma", True),
    ("Schedule rho", "5", "rho", 5.0),
    ("UniPC variant", "bh2", "uni_pc_variant", "bh2"),
])
def test_settings(key: str, text: str, name: str, value: object) -> None:
    pasted = to_request_fields(Infotext("x", "", {**BASE, key: text}))
    assert pasted.settings[name] == value and type(pasted.settings[name]) is type(value)
    assert key not in pasted.extras and pasted.skipped == ()
    assert getattr(with_values(Request().settings, pasted.settings), name) == value


@pytest.mark.parametrize(("version", "prompt", "old"), [
    ("v1.5.2", "[a:b:0.5]", True), ("v1.5.2", "a", False), ("v1.6.0", "[a:b:5]", False), ("1.4.1", "[a]", True),
    ("v1.10.1", "[a]", False), ("f2.0.1v1.10.1-previous", "[a]", False), ("Darkroom 0.1.0", "[a]", False),
    ("", "[a]", False), ("v99999999999999999999.1", "[a]", False),
])
def test_old_pictures_get_old_timelines(version: str, prompt: str, old: bool) -> None:
    pasted = to_request_fields(Infotext(prompt, "", {**BASE, "Version": version}))
    assert pasted.settings["use_old_scheduling"] is old


@pytest.mark.parametrize(("name", "sampler", "schedule"), [
    ("DPM++ 2M Karras", "DPM++ 2M", "Karras"), ("DPM++ 2M SDE Heun Exponential", "DPM++ 2M SDE Heun", "Exponential"),
    ("Euler SGM Uniform", "Euler", "SGM Uniform"), ("DDIM", "DDIM", ""), ("DPM2 a", "DPM2 a", ""), ("", "", ""),
    ("Euler a", "Euler a", ""), ("DPM adaptive", "DPM adaptive", ""), (" Karras", " Karras", ""),
])
def test_combined_names_of_samplers(name: str, sampler: str, schedule: str) -> None:
    assert split_sampler(name) == (sampler, schedule)


def test_an_explicit_schedule_keeps_the_name() -> None:
    assert paste(Sampler="DPM++ 2M Karras").fields["schedule"] == "Karras"
    both = to_request_fields(Infotext("x", "", {**BASE, "Sampler": "My Karras", "Schedule type": "Normal"}))
    assert (both.fields["sampler"], both.fields["schedule"]) == ("My Karras", "Normal")


@pytest.mark.parametrize(("key", "text", "reason"), [
    ("Steps", "many", "steps: 'many' is not a whole number"),
    ("Steps", "0", "steps must be from 1"),
    ("Steps", "9" * 5000, "steps must be"),
    ("CFG scale", "nan", "guidance_scale: 'nan' is not a number"),
    ("CFG scale", "1e400", "guidance_scale: '1e400' is not a number"),
    ("Seed", str(2**64), "seed must be"),
    ("Seed", "12.5", "seed: '12.5' is not"),
    ("Size-1", "513", "width 513 is not a multiple of 8"),
    ("Size-2", "999999", "height must be"),
    ("Variation seed strength", "7", "subseed_strength must be"),
    ("Clip skip", "-3", "CLIP_stop_at_last_layers: -3 is outside"),
    ("Clip skip", "", "Clip skip: '' is not a whole number"),
    ("RNG", "TPU", "randn_source: 'TPU' is none of"),
    ("Discard penultimate sigma", "maybe", "'maybe' is not True or False"),
])
def test_nonsense_is_skipped_and_reported(key: str, text: str, reason: str) -> None:
    pasted = to_request_fields(Infotext("a cat", "", {**BASE, key: text}))
    assert len(pasted.skipped) == 1 and reason in pasted.skipped[0]
    assert pasted.fields["prompt"] == "a cat"
    check(dataclasses.replace(Request(), **pasted.fields))


def test_a_size_that_is_too_large_only_together() -> None:
    pasted = to_request_fields(Infotext("x", "", {**BASE, "Size-1": "16384", "Size-2": "16384"}))
    assert pasted.fields["width"] == 16384 and "height" not in pasted.fields
    assert "megapixels" in pasted.skipped[0]


@given(st.dictionaries(st.sampled_from([*BASE, *HIRES, "RNG", "Clip skip", "Version", "Model", "Sigma churn",
                                        "Emphasis", "Tiling", "Refiner switch at", "First pass size-1",
                                        "First pass size-2", "Hires resize-1", "Hires resize-2"]),
                       st.one_of(st.text(), st.integers().map(str), st.floats().map(str))))
def test_whatever_is_pasted_gives_a_valid_request(parameters: dict) -> None:
    pasted = to_request_fields(Infotext("x", "", parameters))
    request = dataclasses.replace(Request(), **pasted.fields)
    assert check(dataclasses.replace(request, settings=with_values(request.settings, pasted.settings)))
