import dataclasses

import pytest

from modules.core.axes import AXES, add_styles, axes_in, find_axis, read_values, value_text
from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings, setting_infos

# Every axis of A1111 1.10.1 that has a counterpart here: a value, and what it changes.
A1111 = [
    ("Seed", "5", {"seed": 5}), ("Var. seed", "6", {"subseed": 6}), ("Var. strength", "0.5", {"subseed_strength": 0.5}),
    ("Steps", "9", {"steps": 9}), ("Hires steps", "3", {"hr_second_pass_steps": 3}),
    ("CFG Scale", "4.5", {"guidance_scale": 4.5}), ("Image CFG Scale", "2", {"image_cfg_scale": 2.0}),
    ("Prompt S/R", "cat, dog", {"prompt": "a cat, red"}), ("Sampler", "Euler", {"sampler": "Euler"}),
    ("Hires sampler", "LMS", {"hr_sampler": "LMS"}), ("Checkpoint name", "m", {"model": "m"}),
    ("Negative Guidance minimum sigma", "2", {"s_min_uncond": 2.0}), ("Sigma Churn", "1", {"s_churn": 1.0}),
    ("Sigma min", "1", {"s_tmin": 1.0}), ("Sigma max", "9", {"s_tmax": 9.0}), ("Sigma noise", "1.1", {"s_noise": 1.1}),
    ("Schedule type", "Karras", {"schedule": "Karras"}), ("Schedule min sigma", "0.1", {"sigma_min": 0.1}),
    ("Schedule max sigma", "9", {"sigma_max": 9.0}), ("Schedule rho", "5", {"rho": 5.0}),
    ("Beta schedule alpha", "0.7", {"beta_dist_alpha": 0.7}), ("Beta schedule beta", "0.8", {"beta_dist_beta": 0.8}),
    ("Eta", "0.3", {"eta_ancestral": 0.3, "eta_ddim": 0.3}), ("Clip skip", "2", {"CLIP_stop_at_last_layers": 2}),
    ("Denoising", "0.4", {"denoising_strength": 0.4}), ("Initial noise multiplier", "1.1",
                                                        {"initial_noise_multiplier": 1.1}),
    ("Extra noise", "0.1", {"img2img_extra_noise": 0.1}), ("Hires upscaler", "Lanczos", {"hr_upscaler": "Lanczos"}),
    ("Cond. Image Mask Weight", "0.5", {"inpainting_mask_weight": 0.5}), ("VAE", "None", {"vae": "None"}),
    ("Styles", "ink", {"styles": ("film", "ink")}), ("UniPC Order", "2", {"uni_pc_order": 2}),
    ("Face restore", "gfpgan", {"restore_faces": True, "face_restoration_model": "GFPGAN"}),
    ("Always discard next-to-last sigma", "True", {"always_discard_next_to_last_sigma": True}),
    ("SGM noise multiplier", "True", {"sgm_noise_multiplier": True}), ("Refiner checkpoint", "r", {"refiner": "r"}),
    ("Refiner switch at", "0.6", {"refiner_switch_at": 0.6}), ("RNG source", "NV", {"randn_source": "NV"}),
    ("FP8 mode", "Enable", {"fp8_storage": "Enable"}), ("Size", "640x384", {"width": 640, "height": 384}),
]
BASE = Request(prompt="a cat, red", enable_hr=True, styles=("film",))


@pytest.mark.parametrize(("label", "value", "expected"), A1111)
def test_axes_of_a1111_change_what_they_name(label, value, expected):
    axis = find_axis(label, AXES)
    changed = axis.change(BASE, read_values(axis, value)[0])
    fields = {name: value for name, value in expected.items() if name in Request.__dataclass_fields__}
    settings = {name: value for name, value in expected.items() if name not in fields}
    assert changed == dataclasses.replace(BASE, **fields, settings=dataclasses.replace(BASE.settings, **settings))


def test_labels_are_a1111s_in_its_order_and_no_label_is_there_twice():
    labels = [axis.label for axis in AXES]
    assert [label for label, _, _ in A1111] == [label for label in labels[:41] if label != "Prompt order"]
    assert len({label.lower() for label in labels}) == len(labels)
    text, image = ([axis.label for axis in axes_in(tab, AXES)] for tab in ("txt2img", "img2img"))
    assert set(text) - set(image) >= {"Hires steps", "Hires sampler", "Hires upscaler"}
    assert set(image) - set(text) >= {"Image CFG Scale", "Cond. Image Mask Weight"}


def other_value(name, info):
    default = getattr(Settings(), name)
    if isinstance(default, bool):
        return not default
    if isinstance(info.choices, tuple) and info.choices:
        return next(choice for choice in info.choices if choice != default)
    if isinstance(default, str):
        return "#000000"
    return type(default)(info.minimum if info.minimum != default else info.maximum)


def changes(axis, name, value):
    try:
        return axis.kind == type(value).__name__ and getattr(axis.change(BASE, value).settings, name) == value
    except InvalidRequest:
        return False


def test_every_setting_of_a_picture_varies():
    # The checkpoint and the VAE are fields of the request.
    wanted = {name: info for name, info in setting_infos().items()
              if info.per_picture and name not in ("sd_model_checkpoint", "sd_vae")}
    assert [name for name, info in wanted.items()
            if not any(changes(axis, name, other_value(name, info)) for axis in AXES)] == []


def test_costs_order_what_is_slow_to_change():
    costs = [find_axis(label, AXES).cost for label in ("Checkpoint name", "FP8 mode", "VAE", "UniPC Order", "Clip skip",
                                                       "Steps")]
    assert costs == sorted(costs, reverse=True) and costs[-1] == 0


def test_prompts_are_searched_everywhere_and_reordered():
    request = Request(prompt="red cat on red", negative_prompt="red", hr_prompt="a red")
    axis = find_axis("Prompt S/R", AXES)
    _, blue = (axis.change(request, value) for value in read_values(axis, "red, blue"))
    assert (blue.prompt, blue.negative_prompt, blue.hr_prompt) == ("blue cat on blue", "blue", "a blue")
    with pytest.raises(InvalidRequest, match="did not find 'green'"):
        axis.change(request, ("green", "blue"))
    order = find_axis("Prompt order", AXES)
    found = [order.change(Request(prompt="red, red cat; dog"), value).prompt
             for value in read_values(order, "red cat, dog")]
    assert found == ["red, red cat; dog", "red, dog; red cat"]
    with pytest.raises(InvalidRequest, match="did not find 'mouse'"):
        order.change(request, ("cat", "mouse"))


def test_a_size_and_several_styles():
    assert add_styles(Request(), "a, b").styles == ("a", "b")
    axis = find_axis("size", AXES)
    with pytest.raises(InvalidRequest, match="'wide'"):
        axis.change(Request(), "wide")


def test_hires_fix_must_be_on_for_its_axes():
    for label in ("Hires steps", "Denoising"):
        axis = find_axis(label, AXES)
        with pytest.raises(InvalidRequest, match=f"{label}: hires fix is off"):
            axis.change(Request(), read_values(axis, "1")[0])
    assert find_axis("Denoising", AXES).change(Request(kind="img2img"), 0.5).denoising_strength == 0.5


def test_what_is_wrong_names_the_axis():
    with pytest.raises(InvalidRequest, match="Did you mean CFG Scale"):
        find_axis("cfg scal", AXES)
    with pytest.raises(InvalidRequest, match="Steps: 'x' is no whole number"):
        read_values(find_axis("Steps", AXES), "x")
    with pytest.raises(InvalidRequest, match="Steps has no values"):
        read_values(find_axis("Steps", AXES), " ")
    clip = find_axis("Clip skip", AXES)
    with pytest.raises(InvalidRequest, match="Clip skip: .*99"):
        clip.change(Request(), 99)


@pytest.mark.parametrize(("label", "text", "legend"), [
    ("CFG Scale", "7.50", "CFG Scale: 7.5"), ("Sampler", "Euler a", "Euler a"), ("Prompt S/R", "cat", "cat"),
    ("Checkpoint name", "sub/m.safetensors", "m.safetensors"), ("Prompt order", "a", "a"), ("Seed", "1", "Seed: 1"),
    ("Tiling", "True", "Tiling: True"),
])
def test_legends_are_a1111s(label, text, legend):
    axis = find_axis(label, AXES)
    assert axis.legend(axis.label, value_text(axis, read_values(axis, text)[0])) == legend


@pytest.mark.parametrize(("value", "restored"), [("True", True), ("None", False), ("no", False)])
def test_faces_are_restored_by_the_settings_model_or_not_at_all(value, restored):
    axis = find_axis("Face restore", AXES)
    assert axis.change(BASE, value) == dataclasses.replace(BASE, restore_faces=restored)
    with pytest.raises(InvalidRequest, match="Use CodeFormer, GFPGAN"):
        axis.change(BASE, "Photoshop")


def test_no_axis_makes_a_prompt_longer_than_one_may_be():
    axis = find_axis("Prompt S/R", AXES)
    with pytest.raises(InvalidRequest, match="40,000,000 characters"):
        axis.change(Request(prompt="a" * 2000), ("a", "b" * 20_000))
