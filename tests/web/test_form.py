from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings, setting_infos
from modules.plugin.params import param
from modules.web.form import (
    OVERRIDES,
    plugin_fields,
    read,
    read_overrides,
    restored,
    setting_fields,
    to_storage,
    value_of,
    write_overrides,
    written,
)
from modules.web.tabs.txt2img import FIELDS


@dataclass(frozen=True)
class Params:
    enabled: bool = param(False, "Enabled")
    strength: float = param(0.5, "Strength", minimum=0.0, maximum=1.0, step=0.05)
    count: int = param(3, "Count", minimum=1, maximum=9)
    mode: str = param("fast", "Mode", choices=("fast", "slow"))
    text: str = param("", "Text", lines=4)


FORM = (*FIELDS, *plugin_fields("demo", Params, "txt2img"))

requests = st.builds(
    Request, prompt=st.text(max_size=40), negative_prompt=st.text(max_size=40), width=st.sampled_from([64, 512, 2048]),
    height=st.sampled_from([64, 768]), steps=st.integers(1, 150), sampler=st.sampled_from(["Euler a", "DDIM"]),
    guidance_scale=st.floats(1, 30), seed=st.integers(-1, 2**64 - 1), subseed=st.integers(-1, 2**64 - 1),
    subseed_strength=st.floats(0, 1), seed_resize_from_w=st.integers(0, 2048), batch_count=st.integers(1, 100),
    batch_size=st.integers(1, 8), tiling=st.booleans(), denoising_strength=st.floats(0, 1), enable_hr=st.booleans(),
    hr_scale=st.floats(1, 4), hr_resize_x=st.integers(0, 2048), hr_resize_y=st.integers(0, 2048),
    hr_upscaler=st.sampled_from(["Latent", "Lanczos"]), hr_second_pass_steps=st.integers(0, 150),
    hr_checkpoint=st.sampled_from(["", "b.safetensors"]), hr_sampler=st.sampled_from(["", "Euler"]),
    hr_schedule=st.sampled_from(["", "Karras"]), hr_guidance_scale=st.floats(0, 30), hr_prompt=st.text(max_size=20),
    hr_negative_prompt=st.text(max_size=20), refiner=st.sampled_from(["", "xl.safetensors"]),
    refiner_switch_at=st.floats(0.01, 1),
    plugins=st.fixed_dictionaries({"demo": st.fixed_dictionaries({
        "enabled": st.booleans(), "strength": st.floats(0, 1), "count": st.integers(1, 9),
        "mode": st.sampled_from(["fast", "slow"]), "text": st.text(max_size=20),
    })}),
)


@given(requests)
def test_a_request_survives_the_form_its_storage_and_the_way_back(request_: Request) -> None:
    values = written(FORM, {field.target: getattr(request_, field.target) for field in FORM if field.target},
                     request_.plugins) | {"subseed_show": True}
    stored = to_storage(restored(FORM, values))
    assert read(FORM, stored, Settings()) == request_


@given(st.dictionaries(st.sampled_from([field.name for field in FORM]),
                       st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())))
def test_whatever_was_stored_a_restored_form_can_be_read(stored: dict) -> None:
    values = restored(FORM, stored) | {OVERRIDES: ()}
    assert isinstance(read(FORM, values, Settings()), Request)


def test_seed_extras_count_only_while_they_are_shown() -> None:
    values = {"subseed": "5", "subseed_strength": 0.5, "seed_resize_from_w": 512}
    hidden, shown = (read(FIELDS, values | {"subseed_show": show}, Settings()) for show in (False, True))
    assert (hidden.subseed, hidden.subseed_strength, hidden.seed_resize_from_w) == (-1, 0.0, 0)
    assert (shown.subseed, shown.subseed_strength, shown.seed_resize_from_w) == (5, 0.5, 512)


def test_pasting_a_picture_without_variation_hides_the_extras() -> None:
    assert written(FIELDS, {"subseed": -1, "subseed_strength": 0.0}, {})["subseed_show"] is False
    assert written(FIELDS, {"subseed": 7, "subseed_strength": 0.2}, {})["subseed_show"] is True


def test_the_refiner_counts_only_while_it_is_on() -> None:
    values = {"refiner": "xl", "refiner_switch_at": 0.5}
    off, on = (read(FIELDS, values | {"refiner_enable": enabled}, Settings()) for enabled in (False, True))
    assert (off.refiner, on.refiner, on.refiner_switch_at) == ("", "xl", 0.5)
    assert written(FIELDS, {"refiner": ""}, {})["refiner_enable"] is False
    assert written(FIELDS, {"refiner": "xl"}, {})["refiner_enable"] is True
    assert "refiner_enable" not in written(FIELDS, {"prompt": "a"}, {})


@pytest.mark.parametrize(("name", "value", "words"), [
    ("seed", "abc", "Seed"), ("seed", -2, "Seed"), ("steps", 151, "Sampling steps"), ("steps", 2.5, "Sampling steps"),
    ("steps", True, "Sampling steps"), ("cfg_scale", "much", "CFG Scale"), ("cfg_scale", float("nan"), "CFG Scale"),
    ("prompt", 5, "Prompt"), ("subseed_show", "yes", "Extra"), (OVERRIDES, "Clip skip: 2", "Override settings"),
    ("demo/mode", "medium", "Mode"), ("demo/strength", 1.01, "Strength"),
])
def test_a_bad_value_is_refused_by_its_label(name: str, value: object, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read(FORM, {name: value}, Settings())


def test_an_empty_number_means_the_default_and_an_empty_text_stays_empty() -> None:
    steps = next(field for field in FIELDS if field.name == "steps")
    assert (value_of(steps, None), value_of(steps, "")) == (20, 20)
    assert value_of(next(field for field in FIELDS if field.name == "prompt"), "") == ""


def test_a_64_bit_seed_is_exact() -> None:
    assert read(FIELDS, {"seed": "18446744073709551615"}, Settings()).seed == 2**64 - 1


def test_overrides_change_the_settings_of_this_request_only() -> None:
    settings = Settings()
    request = read(FIELDS, {OVERRIDES: ["Clip skip: 2", "Eta: 0.5", "SGM noise multiplier: True", "VAE: None",
                                        "Model: other.safetensors [0123456789]"]}, settings)
    assert (request.settings.CLIP_stop_at_last_layers, request.settings.eta_ancestral) == (2, 0.5)
    assert (request.settings.sgm_noise_multiplier, request.settings.sd_vae) == (True, "None")
    assert request.model == "other.safetensors [0123456789]"
    assert settings == Settings()


@pytest.mark.parametrize("text", ["Nonsense: 2", "Clip skip: two", "Clip skip: 99", "SGM noise multiplier: maybe", ""])
def test_an_override_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read(FIELDS, {OVERRIDES: [text]}, Settings())


def test_overrides_that_were_written_are_read_back() -> None:
    values = {"CLIP_stop_at_last_layers": 2, "randn_source": "NV", "sgm_noise_multiplier": True, "eta_noise_seed_delta":
              31337, "sd_vae": "a: b.safetensors"}
    assert read_overrides(write_overrides(values, "m [1]")) == values | {"model": "m [1]"}


def test_every_setting_becomes_a_field_in_order_with_its_element_id() -> None:
    fields = setting_fields(hidden=["sd_vae"])
    assert [field.name for field in fields] == [name for name in setting_infos() if name != "sd_vae"]
    assert all(field.elem_id == f"setting_{field.name}" for field in fields)
    kinds = {field.name: field.kind for field in fields}
    assert kinds["samples_save"] == "checkbox" and kinds["samples_format"] == "choice"
    assert kinds["eta_ddim"] == "slider" and kinds["hide_samplers"] == "choices"
    assert kinds["eta_noise_seed_delta"] == "number"


def test_plugin_parameters_become_controls_of_their_own_kind() -> None:
    kinds = {field.name: field.kind for field in plugin_fields("demo", Params, "txt2img")}
    assert kinds == {"demo/enabled": "checkbox", "demo/strength": "slider", "demo/count": "slider",
                     "demo/mode": "choice", "demo/text": "text"}
