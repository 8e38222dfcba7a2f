from dataclasses import dataclass
from pathlib import Path

import pytest

from modules.core.settings import Settings
from modules.host.discover import Found
from modules.plugin import Context, Plugin, param
from modules.web.form import OVERRIDES
from modules.web.paste import paste
from modules.web.tabs.txt2img import form
from tests.web.running import fake_engine, make_app

INFOTEXT = """a castle, (mist:1.2)
Negative prompt: people
Steps: 31, Sampler: DPM++ 2M Karras, CFG scale: 5.5, Seed: 18446744073709551615, Size: 640x384, \
Model hash: 0123456789, Model: elsewhere, Variation seed: 9, Variation seed strength: 0.25, Clip skip: 2, RNG: NV, \
Demo strength: 0.75, Version: v1.10.1"""


@dataclass(frozen=True)
class Params:
    strength: float = param(0.5, "Strength", infotext="Demo strength", minimum=0.0, maximum=1.0)
    enabled: bool = param(False, "Enabled", infotext="Demo")


class Demo(Plugin):
    id = "demo"
    name = "Demo"
    Params = Params


@pytest.fixture
def app(tmp_path: Path):
    folder = tmp_path / "extensions" / "demo"
    plugin = Demo(Context(folder, tmp_path, {}))
    built = make_app(tmp_path, fake_engine(tmp_path), (Found("demo", folder, plugin),))
    yield built
    built.close()


def test_an_old_infotext_fills_the_form(app) -> None:
    pasted = paste(form(app), INFOTEXT, app)
    values = pasted.values
    assert (values["prompt"], values["negative_prompt"]) == ("a castle, (mist:1.2)", "people")
    assert (values["steps"], values["sampler"], values["schedule"]) == (31, "DPM++ 2M", "Karras")
    assert (values["width"], values["height"], values["cfg_scale"]) == (640, 384, 5.5)
    assert (values["seed"], values["subseed"], values["subseed_strength"]) == (2**64 - 1, 9, 0.25)
    assert values["subseed_show"] is True
    assert values["demo/strength"] == 0.75 and values["demo/enabled"] is False
    assert set(values[OVERRIDES]) == {"Clip skip: 2", "RNG: NV"}
    assert len(pasted.problems) == 1 and "elsewhere" in pasted.problems[0]


def test_settings_already_in_force_are_no_overrides(app) -> None:
    app.settings.update({"CLIP_stop_at_last_layers": 2, "randn_source": "NV"})
    assert paste(form(app), INFOTEXT, app).values[OVERRIDES] == ()


def test_a_model_that_is_here_becomes_an_override_unless_it_is_chosen(app) -> None:
    (app.folders.checkpoints[0] / "another.safetensors").write_bytes(b"y")
    app.refresh()
    app.settings.update({"sd_model_checkpoint": "stand-in.safetensors"})
    other, chosen = (paste(form(app), f"a\nSteps: 20, Sampler: Euler, Seed: 1, Model: {name}, RNG: CPU", app)
                     for name in ("another", "stand-in"))
    assert other.values[OVERRIDES] == ("Model: another.safetensors",)
    assert chosen.values[OVERRIDES] == ()


def test_a_vae_that_is_here_becomes_an_override_and_another_is_reported(app) -> None:
    app.folders.vae[0].mkdir(parents=True)
    (app.folders.vae[0] / "soft.safetensors").write_bytes(b"y")
    app.refresh()
    here, missing = (paste(form(app), f"a\nSteps: 20, Sampler: Euler, Seed: 1, VAE: {name}, RNG: CPU", app)
                     for name in ("soft.safetensors", "gone.safetensors"))
    assert here.values[OVERRIDES] == ("VAE: soft.safetensors",) and here.problems == ()
    assert missing.values[OVERRIDES] == () and "gone.safetensors is not here" in missing.problems[0]


def test_text_without_parameters_is_a_prompt_and_changes_nothing_else(app) -> None:
    assert set(paste(form(app), "just words", app).values) <= {"prompt", "negative_prompt", "demo/strength",
                                                               "demo/enabled"}


def test_sending_keeps_seed_and_size_where_the_settings_say_so(app) -> None:
    app.settings.update({"send_seed": False, "send_size": False})
    sent, typed = (paste(form(app), INFOTEXT, app, sent=sent).values for sent in (True, False))
    assert not {"seed", "subseed", "width", "height"} & set(sent)
    assert typed["seed"] == 2**64 - 1
    assert Settings().send_seed is True


def test_nonsense_is_reported_and_the_rest_is_used(app) -> None:
    pasted = paste(form(app), "a\nSteps: many, Sampler: Euler, Seed: 3, Size: 512x512, CFG scale: 7", app)
    assert "steps" not in pasted.values and pasted.values["seed"] == 3
    assert any("steps" in problem.lower() for problem in pasted.problems)


def test_hires_fix_refiner_and_tiling_are_pasted(app) -> None:
    text = (f"{INFOTEXT}, Denoising strength: 0.4, Hires resize: 1280x768, Hires steps: 9, Hires upscaler: Lanczos, "
            "Hires checkpoint: stand-in, Hires sampler: Euler a, Hires schedule type: Karras, "
            'Hires prompt: "a castle, huge", Hires CFG Scale: 3, Tiling: True, Refiner: stand-in [0123456789], '
            "Refiner switch at: 0.6")
    pasted = paste(form(app), text, app)
    expected = {
        "enable_hr": True, "denoising_strength": 0.4, "hr_resize_x": 1280, "hr_resize_y": 768,
        "hr_second_pass_steps": 9, "hr_upscaler": "Lanczos", "hr_checkpoint": "stand-in.safetensors",
        "hr_sampler": "Euler a", "hr_schedule": "Karras", "hr_prompt": "a castle, huge", "hr_negative_prompt": "",
        "hr_cfg": 3.0, "tiling": True, "refiner_enable": True, "refiner": "stand-in.safetensors",
        "refiner_switch_at": 0.6,
    }
    assert {name: pasted.values[name] for name in expected} == expected
    assert len(pasted.problems) == 1 and "elsewhere" in pasted.problems[0]
    off = paste(form(app), INFOTEXT, app).values
    assert (off["enable_hr"], off["tiling"], off["refiner_enable"], off["refiner"]) == (False, False, False, "")


def test_models_of_hires_fix_and_refiner_that_are_lost_are_reported(app) -> None:
    text = (f"{INFOTEXT}, Denoising strength: 0.4, Hires upscale: 2, Hires checkpoint: lost, "
            "Refiner: gone [aaaaaaaaaa], Refiner switch at: 0.6")
    pasted = paste(form(app), text, app)
    assert (pasted.values["hr_checkpoint"], pasted.values["refiner"], pasted.values["refiner_enable"]) == (
        "", "", False)
    assert [problem for problem in pasted.problems if "elsewhere" not in problem] == [
        "The model lost is not here; hires fix uses the first pass's.",
        "The model gone [aaaaaaaaaa] is not here; there is no refiner."]
